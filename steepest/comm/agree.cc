#include "steepest/comm/agree.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <sstream>

#include "steepest/base/error.h"
#include "steepest/base/hash.h"

namespace steepest {
namespace {

constexpr std::size_t kShownText = 128;
constexpr std::size_t kLongestText = std::size_t{1} << 20;
using Text = std::array<char, kShownText>;  // cut, padded with 0

template <class T>
std::vector<T> gather(ProcessGroup& group, const T& mine) {
  std::vector<T> all(static_cast<std::size_t>(group.world_size()));
  group.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  return all;
}

Text fixed_text(std::string_view text) {
  Text fixed{};
  std::copy_n(text.begin(), std::min(text.size(), fixed.size()), fixed.begin());
  return fixed;
}

std::string from_fixed(const Text& text) {
  return {text.begin(), std::find(text.begin(), text.end(), '\0')};
}

// "rank 3" or "ranks 0, 1, 5 and 12 more"
std::string rank_list(const std::vector<int>& ranks) {
  std::string list = ranks.size() == 1 ? "rank " : "ranks ";
  const std::size_t shown = std::min<std::size_t>(ranks.size(), 8);
  for (std::size_t i = 0; i < shown; ++i) list += concat(i ? ", " : "", ranks[i]);
  if (ranks.size() > shown) list += concat(" and ", ranks.size() - shown, " more");
  return list;
}

// The ranks that share each value, in order of the first rank that has it.
template <class T>
std::vector<std::vector<int>> group_by_value(const std::vector<T>& values) {
  std::map<T, std::vector<int>> by_value;
  for (std::size_t r = 0; r < values.size(); ++r) by_value[values[r]].push_back(static_cast<int>(r));
  std::vector<std::vector<int>> groups;
  for (auto& [value, ranks] : by_value) groups.push_back(ranks);
  std::sort(groups.begin(), groups.end());
  return groups;
}

// What each rank has as `mine`, cut to kLongestText.
std::vector<std::string> gather_texts(ProcessGroup& group, std::string_view mine) {
  mine = mine.substr(0, kLongestText);
  const std::vector<std::uint64_t> sizes = gather(group, std::uint64_t{mine.size()});
  const std::size_t longest = std::min<std::size_t>(*std::max_element(sizes.begin(), sizes.end()), kLongestText);
  std::vector<char> padded(longest);
  std::copy(mine.begin(), mine.end(), padded.begin());
  std::vector<char> all(sizes.size() * longest);
  group.all_gather(std::as_bytes(std::span(padded)), std::as_writable_bytes(std::span(all)));
  std::vector<std::string> texts;
  for (std::size_t r = 0; r < sizes.size(); ++r)
    texts.emplace_back(all.data() + r * longest, std::min<std::size_t>(sizes[r], longest));
  return texts;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line.erase(0, line.find_first_not_of(' ')));
  return lines;
}

// Line `i`, cut for a message.
std::string shown_line(const std::vector<std::string>& lines, std::size_t i) {
  if (i >= lines.size() || lines[i].empty()) return "nothing";
  return lines[i].size() <= kShownText ? lines[i] : lines[i].substr(0, kShownText) + "...";
}

}  // namespace

void require_equal(ProcessGroup& group, std::string_view what, const std::string& value) {
  if (group.world_size() == 1) return;
  const auto bytes_of = [](std::string_view text) { return std::as_bytes(std::span(text)); };
  // The name is hashed too: ranks that compare different things have taken different ways through the program.
  const auto identities = gather(group, std::array<std::uint64_t, 2>{xxh3(bytes_of(value)), xxh3(bytes_of(what))});
  const auto parties = group_by_value(identities);
  if (parties.size() == 1) return;
  const std::vector<std::string> values = gather_texts(group, value);
  const std::vector<std::string> names = gather_texts(group, what);

  const auto first_of = [&](std::size_t party) { return static_cast<std::size_t>(parties[party].front()); };
  const std::vector<std::string> ours = lines_of(values[first_of(0)]);
  const std::vector<std::string> theirs = lines_of(values[first_of(1)]);
  const bool several_lines = ours.size() > 1 || theirs.size() > 1;
  std::size_t line = 0;
  std::string section;
  for (; several_lines && line < ours.size() && line < theirs.size() && ours[line] == theirs[line]; ++line)
    if (ours[line].starts_with('[')) section = ours[line];

  std::string text;
  for (std::size_t i = 0; i < parties.size() && i < 3; ++i) {
    const std::string& name = names[first_of(i)];
    if (i > 0) text += " and ";
    if (i == 0 || name != names[first_of(i - 1)])
      text += concat(name, several_lines ? " has " : " is ",
                     several_lines && !section.empty() ? "in " + section + " " : "");
    text += concat(shown_line(lines_of(values[first_of(i)]), line), " on ", rank_list(parties[i]));
  }
  group.fail_here(concat(text, "; start all ranks with the same program, recipe and data"));
}

std::optional<Divergence> compare_replicas(ProcessGroup& group, std::span<const std::span<const std::byte>> weights) {
  if (group.world_size() == 1) return std::nullopt;
  Xxh3Stream stream;
  for (const auto& piece : weights) stream.update(piece);
  const std::vector<std::uint64_t> hashes = gather(group, stream.digest());
  const auto parties = group_by_value(hashes);
  if (parties.size() == 1) return std::nullopt;
  const auto hash_of = [&](const std::vector<int>& ranks) {
    return hex(hashes[static_cast<std::size_t>(ranks.front())]);
  };
  const auto largest = std::max_element(parties.begin(), parties.end(),
                                        [](const auto& a, const auto& b) { return a.size() < b.size(); });
  Divergence found;
  if (2 * largest->size() <= hashes.size()) {
    found.text =
        concat("weights or shared state differ between ", rank_list(parties[0]), " (XXH3 ", hash_of(parties[0]),
               ") and ", rank_list(parties[1]), " (XXH3 ", hash_of(parties[1]), ") without a majority");
    return found;
  }
  found.source = largest->front();
  for (const auto& ranks : parties)
    if (&ranks != &*largest) found.minority.insert(found.minority.end(), ranks.begin(), ranks.end());
  std::sort(found.minority.begin(), found.minority.end());
  found.text = concat("weights or shared state of ", rank_list(found.minority), " differ from those of the other ",
                      largest->size(), " (XXH3 ", hash_of(found.minority), ", the others ", hash_of(*largest), ')');
  return found;
}

void check_replicas(ProcessGroup& group, std::span<const std::span<const std::byte>> weights) {
  if (const auto found = compare_replicas(group, weights))
    group.fail_here(found->text + "; stop, and start all ranks again from the last checkpoint");
}

std::vector<NonFiniteRank> ranks_with_non_finite_gradient(ProcessGroup& group, const std::string& tensor) {
  const std::vector<std::uint8_t> flags = gather(group, static_cast<std::uint8_t>(!tensor.empty()));
  if (std::find(flags.begin(), flags.end(), 1) == flags.end()) return {};
  const std::vector<Text> names = gather(group, fixed_text(tensor));
  std::vector<NonFiniteRank> flagged;
  for (std::size_t r = 0; r < flags.size(); ++r)
    if (flags[r]) flagged.push_back({static_cast<int>(r), from_fixed(names[r])});
  return flagged;
}

}  // namespace steepest
