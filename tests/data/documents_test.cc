// Finding text and cutting it into documents.
#include "steepest/data/documents.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include "steepest/base/error.h"
#include "tests/data/temporary.h"
#include "tests/data/text.h"

namespace steepest {
namespace {

std::vector<std::string> names(const Source& source) {
  std::vector<std::string> found;
  for (const SourceFile& file : source.files) found.push_back(file.name);
  return found;
}

std::string gzip(std::string_view text) {
  z_stream stream{};
  deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, text.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  stream.avail_in = static_cast<uInt>(text.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string read_all(const std::filesystem::path& path) {
  TextReader reader(path);
  std::string text, part(1000, '\0');
  while (const std::size_t count = reader.read(part)) text += part.substr(0, count);
  return text;
}

std::vector<Document> documents(const Source& source, std::size_t smallest) {
  DocumentReader reader(source, smallest);
  std::vector<Document> found;
  for (Document document; reader.next(document);) found.push_back(document);
  return found;
}

TEST(Source, FoldersAreReadInTheOrderOfNamesWithoutHiddenBinaryOrPreparedFiles) {
  const TemporaryFolder folder;
  folder.file("b.txt", "b");
  folder.file("a/z.txt", "z");
  folder.file("a-b.txt", "x");
  folder.file(".hidden", "h");
  folder.file(".git/config", "h");
  folder.file("picture", std::string_view("\x89PNG\0", 5));
  folder.file("tokens/dataset.json", "{}");
  folder.file("tokens/train_000001.bin", "t");
  folder.file("tokens.partial/val_000000.bin", "t");
  folder.file("c.gz", gzip(std::string(10, '\0')));
  const Source source = find_source({folder.path()});
  EXPECT_EQ(names(source), (std::vector<std::string>{"a-b.txt", "a/z.txt", "b.txt", "c.gz"}));
  EXPECT_EQ(source.skipped, std::vector{folder / "picture"});
}

TEST(Source, FilesNamedOneByOneKeepTheirOrderAndMayBeBinary) {
  const TemporaryFolder folder;
  const auto b = folder.file("b", "b"), a = folder.file("a", std::string_view("\0a", 2));
  EXPECT_EQ(names(find_source({b, a})), (std::vector<std::string>{"b", "a"}));
}

TEST(Source, MissingAndEmptyInputsAreRefused) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of([&] { find_source({folder / "none"}); }).find("does not exist"), std::string::npos);
  EXPECT_NE(error_of([&] { find_source({folder.path()}); }).find("holds no text files"), std::string::npos);
  EXPECT_THROW(find_source({"/dev/null"}), Error);
}

TEST(Source, TheFingerprintSeesNamesAndContents) {
  const TemporaryFolder folder;
  folder.file("a", "one");
  const std::uint64_t before = fingerprint(find_source({folder.path()}));
  EXPECT_EQ(fingerprint(find_source({folder.path()})), before);
  folder.file("a", "two");
  EXPECT_NE(fingerprint(find_source({folder.path()})), before);
  folder.file("a", "one");
  EXPECT_EQ(fingerprint(find_source({folder.path()})), before);
  folder.file("b", "");
  EXPECT_NE(fingerprint(find_source({folder.path()})), before);
}

TEST(Source, GzipIsRecognisedByItsContent) {
  const TemporaryFolder folder;
  const std::string text = english(100'000);
  EXPECT_EQ(read_all(folder.file("plain.gz", text)), text);
  EXPECT_EQ(read_all(folder.file("dictionary.dz", gzip(text))), text);
  EXPECT_EQ(read_all(folder.file("two members", gzip(text) + gzip("more"))), text + "more");
  EXPECT_EQ(read_all(folder.file("empty", "")), "");
}

TEST(Source, DamagedGzipFilesAreRefusedByName) {
  const TemporaryFolder folder;
  std::string packed = gzip(english(100'000));
  const std::string truncated =
      error_of([&] { read_all(folder.file("short.gz", packed.substr(0, packed.size() / 2))); });
  EXPECT_NE(truncated.find("short.gz"), std::string::npos) << truncated;
  EXPECT_NE(truncated.find("truncated"), std::string::npos) << truncated;
  packed[packed.size() / 2] ^= 0x55;
  EXPECT_THROW(read_all(folder.file("flipped.gz", packed)), Error);
}

TEST(Documents, EndAfterTheFirstBlankLineThatIsFarEnough) {
  const std::string text = std::string(20, 'a') + "\n\n" + std::string(80, 'b') + "\n \r\n" + std::string(2000, 'c');
  EXPECT_EQ(document_end(text, 50, true), 20u + 2 + 80 + 4);
  EXPECT_EQ(document_end(text, 10, true), 22u);
}

TEST(Documents, WithoutBlankLinesEndAtANewlineASpaceOrACharacter) {
  const std::string a(450, 'a');
  EXPECT_EQ(document_end(a + "\n" + a + a, 100, true), 451u);
  EXPECT_EQ(document_end(a + " " + a + a, 100, true), 450u);
  EXPECT_EQ(document_end(a + a + a, 100, true), 800u);
  std::string umlauts = "a";
  for (int i = 0; i < 500; ++i) umlauts += "ä";
  EXPECT_EQ(document_end(umlauts, 100, true), 799u);
}

TEST(Documents, ShortTextIsOneDocument) {
  EXPECT_EQ(document_end("short\n\ntext", 100, true), 11u);
  EXPECT_EQ(document_end(std::string(500, 'x'), 100, true), 500u);
}

TEST(Documents, JoinedTheyAreTheFilesAgain) {
  const TemporaryFolder folder;
  const std::string first = english(700'000, 1), second = std::string(300'000, '\xFF'), third = "tail";
  folder.file("1", first);
  folder.file("2", second);
  folder.file("3", "");
  folder.file("4", third);
  for (const std::size_t smallest : {256, 1000, 4096}) {
    std::string joined;
    int ends = 0;
    for (const Document& document : documents(find_source({folder.path()}), smallest)) {
      EXPECT_LE(document.text.size(), 8 * smallest);
      EXPECT_FALSE(document.text.empty());
      joined += document.text;
      ends += document.ends_file;
    }
    EXPECT_EQ(joined, first + second + third);
    EXPECT_EQ(ends, 3);
  }
}

}  // namespace
}  // namespace steepest
