// Shows how far the preparation of text is, on standard error.
#pragma once

#include "steepest/data/prepare.h"

namespace steepest::cli {

/// A callback that refreshes one line on a terminal and prints one line per stage, at most every 5 seconds, into a
/// pipe.
PrepareCallback show_prepare_progress();

/// Ends the refreshed line, if there is one.
void end_prepare_progress();

}  // namespace steepest::cli
