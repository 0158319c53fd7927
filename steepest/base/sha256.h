// SHA-256 (FIPS 180-4) and HMAC (RFC 2104): proofs that somebody knows a secret, without showing it. For small inputs.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <string_view>

namespace steepest {

using Digest = std::array<std::byte, 32>;

/// SHA-256 of the bytes.
Digest sha256(std::span<const std::byte> bytes);

/// HMAC-SHA-256 of the parts under `key`. Each part enters with its length, so that no two lists of parts are alike.
Digest hmac(std::span<const std::byte> key, std::span<const std::string_view> parts);

/// Whether the bytes are the same; the time it takes does not tell where they differ.
bool same_bytes(std::span<const std::byte> a, std::span<const std::byte> b);

/// 64 lower-case hexadecimal digits.
std::string hex(const Digest& digest);

}  // namespace steepest
