#include "steepest/comm/byzantine.h"

#include <algorithm>
#include <cstring>
#include <random>

#include "steepest/base/error.h"
#include "steepest/base/hash.h"
#include "steepest/base/parallel.h"
#include "steepest/kernels/bits.h"

namespace steepest {
namespace {

constexpr std::size_t kHeaderWords = kWireHeaderBytes / 8;

std::string rank_names(const std::vector<int>& ranks) {
  std::string names = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size(); ++i) names += concat(i == 0 ? "" : ", ", ranks[i]);
  return names;
}

}  // namespace

std::string ByzantineOutcome::text() const {
  std::string all;
  const auto add = [&](const std::string& sentence) { all += (all.empty() ? "" : "; ") + sentence; };
  if (!equivocating.empty())
    add(rank_names(equivocating) + " sent different votes to different ranks and did not count");
  if (!unreadable.empty()) add(rank_names(unreadable) + " sent what is not a vote and did not count");
  for (const auto& [a, b] : disputes)
    add(a == b ? concat("rank ", a, " says to have voted otherwise than it has")
               : concat("rank ", b, " says to have received another vote from rank ", a, "; one of the two lies"));
  return all;
}

ByzantineExchange::ByzantineExchange(ProcessGroup& group, std::size_t bits, VoteRules rules)
    : group_(group),
      bits_(bits),
      plane_(words_for(bits)),
      rules_(rules),
      ranks_(static_cast<std::size_t>(group.world_size())),
      me_(static_cast<std::size_t>(group.rank())),
      liars_(static_cast<std::size_t>(tolerated_liars(group.world_size()))),
      messages_(ranks_ * (kHeaderWords + words())),
      contents_(ranks_) {}

std::span<std::uint64_t> ByzantineExchange::message_of(std::size_t rank) {
  const std::size_t size = kHeaderWords + words();
  return std::span(messages_).subspan(rank * size, size);
}

std::span<std::uint64_t> ByzantineExchange::payload_of(std::size_t rank) {
  return message_of(rank).subspan(kHeaderWords);
}

WireHeader ByzantineExchange::header(std::uint64_t t, int sender, bool abstains) const {
  WireHeader header;
  header.kind = MessageKind::Vote;
  header.step = t;
  header.bits = bits_;
  header.ranks = static_cast<std::uint32_t>(ranks_);
  header.sender = static_cast<std::uint32_t>(sender);
  header.flags = static_cast<std::uint32_t>(rules_.zero) << wire_flags::kZeroRuleShift;
  if (rules_.planes() == 2) header.flags |= wire_flags::kSecondPlane;
  if (rules_.tie == TieRule::Plus) header.flags |= wire_flags::kTiePlus;
  if (abstains) header.flags |= wire_flags::kAbstain;
  return header;
}

// One text for one meaning: bits that say nothing must not make two votes different.
void ByzantineExchange::clean(std::span<std::uint64_t> payload) const {
  const std::uint64_t tail = bits_ % 64 == 0 ? ~0ull : (1ull << bits_ % 64) - 1;
  for (std::size_t p = 1; p <= rules_.planes(); ++p) payload[p * plane_ - 1] &= tail;
  for (std::size_t i = 0; rules_.planes() == 2 && i < plane_; ++i) payload[i] &= payload[plane_ + i];
}

ByzantineOutcome ByzantineExchange::operator()(std::span<const std::uint64_t> mine, std::uint64_t t,
                                               std::span<std::uint64_t> decided) {
  if ((!mine.empty() && mine.size() != words()) || decided.size() != words() || bits_ == 0)
    group_.fail_here(concat("a vote of ", bits_, " bits needs ", words(), " words and at least 1 bit; it got ",
                            mine.size(), " and ", decided.size()));
  send_votes(mine, t);
  Flags accepted(1, 1);
  if (ranks_ > 1) {
    compare();
    accepted = agree_on_senders();
    fetch(accepted, held_);
  }

  ByzantineOutcome outcome;
  std::vector<const std::uint64_t*> votes;
  std::vector<ConstTernaryPlanes> planes;
  for (std::size_t r = 0; r < ranks_; ++r) {
    const int rank = static_cast<int>(r);
    if (!accepted[r]) {
      outcome.equivocating.push_back(rank);
    } else if (contents_[r] == Content::Unreadable) {
      outcome.unreadable.push_back(rank);
    } else if (contents_[r] == Content::Abstention) {
      outcome.abstaining.push_back(rank);
    } else {
      votes.push_back(payload_of(r).data());
      planes.push_back({payload_of(r).data(), payload_of(r).data() + plane_});
    }
    for (std::size_t i = 0; accepted[r] && i < ranks_ && ranks_ > 1; ++i)
      if (!same_[i][r]) outcome.disputes.emplace_back(rank, static_cast<int>(i));
  }
  outcome.counted = static_cast<unsigned>(votes.size());
  if (votes.empty()) return outcome;
  if (rules_.planes() == 1)
    vote(votes, plane_, vote_threshold(outcome.counted, t, rules_.tie), decided.data());
  else
    vote_ternary(planes, plane_, {decided.data(), decided.data() + plane_});
  return outcome;
}

void ByzantineExchange::send_votes(std::span<const std::uint64_t> mine, std::uint64_t t) {
  const std::span<std::uint64_t> own = payload_of(me_);
  if (mine.empty())
    std::fill(own.begin(), own.end(), 0);
  else
    std::copy(mine.begin(), mine.end(), own.begin());
  clean(own);
  contents_[me_] = mine.empty() ? Content::Abstention : Content::Vote;
  if (ranks_ == 1) return;
  seal_message(std::as_writable_bytes(message_of(me_)), header(t, group_.rank(), mine.empty()));
  const std::vector<std::span<const std::byte>> outgoing(ranks_, std::as_bytes(message_of(me_)));
  std::vector<std::span<std::byte>> incoming(ranks_);
  for (std::size_t r = 0; r < ranks_; ++r) incoming[r] = std::as_writable_bytes(message_of(r));
  group_.exchange(outgoing, incoming);
  for (std::size_t r = 0; r < ranks_; ++r) {
    if (r == me_) continue;
    const int sender = static_cast<int>(r);
    if (!message_mismatch(incoming[r], header(t, sender, false))) {
      contents_[r] = Content::Vote;
      clean(payload_of(r));
    } else {
      const bool abstains = !message_mismatch(incoming[r], header(t, sender, true));
      contents_[r] = abstains ? Content::Abstention : Content::Unreadable;
    }
  }
}

std::vector<ByzantineExchange::Flags> ByzantineExchange::tell_all(std::span<const std::uint8_t> mine) {
  std::vector<Flags> all(ranks_, Flags(mine.size()));
  std::copy(mine.begin(), mine.end(), all[me_].begin());
  const std::vector<std::span<const std::byte>> outgoing(ranks_, std::as_bytes(mine));
  std::vector<std::span<std::byte>> incoming(ranks_);
  for (std::size_t r = 0; r < ranks_; ++r) incoming[r] = std::as_writable_bytes(std::span(all[r]));
  group_.exchange(outgoing, incoming);
  return all;
}

std::uint64_t ByzantineExchange::digest(std::size_t sender, std::uint64_t seed) {
  if (contents_[sender] == Content::Vote) return xxh3(std::as_bytes(payload_of(sender)), seed);
  return xxh3(std::as_bytes(std::span(&contents_[sender], 1)), seed);
}

// same_ <- who has received from whom what this rank has received.
void ByzantineExchange::compare() {
  // A seed is told only when no honest rank waits for a vote any more.
  tell_all(Flags(1));
  std::random_device random;
  std::vector<std::uint64_t> mine(ranks_ + 1);
  mine[0] = static_cast<std::uint64_t>(random()) << 32 | random();
  parallel_chunks(ranks_, 1, [&](std::size_t j, std::size_t) { mine[1 + j] = digest(j, mine[0]); });
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(mine.data());
  const std::vector<Flags> reports = tell_all({bytes, mine.size() * sizeof(mine[0])});
  same_.assign(ranks_, Flags(ranks_));
  parallel_chunks(ranks_ * ranks_, 1, [&](std::size_t pair, std::size_t) {
    const std::size_t i = pair / ranks_, j = pair % ranks_;
    std::uint64_t seed = 0, told = 0;
    std::memcpy(&seed, reports[i].data(), sizeof seed);
    std::memcpy(&told, reports[i].data() + (1 + j) * sizeof told, sizeof told);
    same_[i][j] = i == me_ || told == digest(j, seed);
  });
}

// Turpin and Coan's reduction, where "the value" of a sender is whatever it has sent: 1 for the senders whose message
// is accepted on all honest ranks. held_ <- whether this rank has the accepted one.
ByzantineExchange::Flags ByzantineExchange::agree_on_senders() {
  const std::size_t most = ranks_ - liars_;
  Flags widespread(ranks_), accepts(ranks_);
  for (std::size_t j = 0; j < ranks_; ++j) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < ranks_; ++i) count += same_[i][j];
    widespread[j] = count >= most;
  }
  const std::vector<Flags> all = tell_all(widespread);
  held_.assign(ranks_, 0);
  for (std::size_t j = 0; j < ranks_; ++j) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < ranks_; ++i) count += all[i][j] == 1 && same_[i][j];
    accepts[j] = count >= most;
    held_[j] = count > liars_;  // an honest rank is among them, and no two of those have different ones
  }
  return agree_on_bits(accepts);
}

// The king algorithm, for one bit per sender at a time: f + 1 phases, of which one has an honest king.
ByzantineExchange::Flags ByzantineExchange::agree_on_bits(Flags bits) {
  constexpr std::uint8_t kNothing = 2;
  const std::size_t most = ranks_ - liars_;
  for (std::size_t king = 0; king <= liars_; ++king) {
    const std::vector<Flags> values = tell_all(bits);
    Flags proposal(ranks_, kNothing), sure(ranks_);
    const auto count = [&](const std::vector<Flags>& all, std::size_t j, std::uint8_t value) {
      return static_cast<std::size_t>(
          std::count_if(all.begin(), all.end(), [&](const Flags& of) { return of[j] == value; }));
    };
    for (std::size_t j = 0; j < ranks_; ++j)
      for (const std::uint8_t value : {0, 1})
        if (count(values, j, value) >= most) proposal[j] = value;
    const std::vector<Flags> proposals = tell_all(proposal);
    for (std::size_t j = 0; j < ranks_; ++j) {
      for (const std::uint8_t value : {0, 1})
        if (count(proposals, j, value) > liars_) bits[j] = value;
      sure[j] = count(proposals, j, bits[j]) >= most;
    }
    Flags of_king = bits;
    std::vector<std::span<const std::byte>> outgoing(ranks_);
    std::vector<std::span<std::byte>> incoming(ranks_);
    if (king == me_)
      std::fill(outgoing.begin(), outgoing.end(), std::as_bytes(std::span(bits)));
    else
      incoming[king] = std::as_writable_bytes(std::span(of_king));
    group_.exchange(outgoing, incoming);
    for (std::size_t j = 0; j < ranks_; ++j)
      if (!sure[j]) bits[j] = of_king[j] == 1;
  }
  return bits;
}

// At least f + 1 honest ranks hold what is accepted of each sender. A rank that does not asks all, and takes what f + 1
// of them agree on.
void ByzantineExchange::fetch(const Flags& accepted, const Flags& held) {
  Flags needed(ranks_);
  for (std::size_t j = 0; j < ranks_; ++j) needed[j] = accepted[j] && !held[j];
  const std::vector<Flags> asked = tell_all(needed);
  const std::size_t size = 1 + words();  // what kind of content, and a vote
  const auto senders_in = [](const Flags& flags) {
    std::vector<std::size_t> list;
    for (std::size_t j = 0; j < flags.size(); ++j)
      if (flags[j] != 0) list.push_back(j);
    return list;
  };
  const std::vector<std::size_t> mine = senders_in(needed);
  std::vector<std::vector<std::uint64_t>> answers(ranks_), received(ranks_);
  std::vector<std::span<const std::byte>> outgoing(ranks_);
  std::vector<std::span<std::byte>> incoming(ranks_);
  for (std::size_t r = 0; r < ranks_; ++r) {
    if (r == me_) continue;
    for (const std::size_t j : senders_in(asked[r])) {
      const std::span<const std::uint64_t> payload = payload_of(j);
      const bool vote = held[j] && contents_[j] == Content::Vote;
      answers[r].push_back(held[j] ? static_cast<std::uint64_t>(contents_[j]) : ~0ull);
      answers[r].insert(answers[r].end(), words(), 0);
      if (vote) std::copy(payload.begin(), payload.end(), answers[r].end() - static_cast<std::ptrdiff_t>(words()));
    }
    received[r].resize(mine.size() * size);
    outgoing[r] = std::as_bytes(std::span(answers[r]));
    incoming[r] = std::as_writable_bytes(std::span(received[r]));
  }
  group_.exchange(outgoing, incoming);
  for (std::size_t k = 0; k < mine.size(); ++k) {
    const auto answer = [&](std::size_t r) { return std::span(received[r]).subspan(k * size, size); };
    const auto support = [&](std::size_t r) {
      std::size_t count = 0;
      for (std::size_t i = 0; i < ranks_; ++i) count += i != me_ && std::ranges::equal(answer(i), answer(r));
      return count;
    };
    std::size_t r = 0;
    while (r < ranks_ && (r == me_ || answer(r)[0] > static_cast<std::uint64_t>(Content::Vote) || support(r) <= liars_))
      ++r;
    if (r == ranks_)
      group_.fail_here(concat("the others do not agree on what rank ", mine[k], " has voted; more than ", liars_,
                              " ranks lie, which is more than byzantine votes of ", ranks_, " can bear"));
    contents_[mine[k]] = static_cast<Content>(answer(r)[0]);
    const std::span<std::uint64_t> vote = answer(r).subspan(1);
    clean(vote);
    std::copy(vote.begin(), vote.end(), payload_of(mine[k]).begin());
  }
}

}  // namespace steepest
