// In what two recipes differ that a run must not change without notice.
#pragma once

#include <string>

namespace steepest {

/// "[train] seed was 1, is 2; [optimizer.matrix] lr was 0.02, is 0.01": keys of two recipes as to_toml writes them.
/// Left out is what may change between the parts of a run: max_steps, threads, log_every, and all of [eval],
/// [checkpoint] and the keys of [distributed] that change no bits. Empty: nothing.
std::string recipe_changes(const std::string& before, const std::string& now);

}  // namespace steepest
