// Appending to a log file that must stay readable: a record is there as a whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace steepest {

/// Opens `path` for appending (created when missing), cut to its first `keep` bytes. Throws Error.
int open_for_append(const std::filesystem::path& path, std::uint64_t keep);

/// Appends the record in one go; when the disk is full, takes back what was written and throws Error.
void append_record(int descriptor, std::string_view record, const std::filesystem::path& path);

}  // namespace steepest
