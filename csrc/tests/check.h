// The smallest test harness that does: TEST(name) { CHECK(...); }, one process runs all or the named ones.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <sstream>
#include <string>
#include <vector>

namespace aesg::testing {

// Sanitizers are slow: campaigns over every k take each kStride-th there.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int kStride = 11;
#else
inline constexpr int kStride = 1;
#endif

// The long form of what is sampled otherwise: every bit, every byte, every length. AESG_EVERY=1
inline bool every() {
  static const bool set = std::getenv("AESG_EVERY") != nullptr;
  return set;
}

struct Failed {};

struct Case {
  const char* name;
  std::function<void()> run;
};

inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}

struct Registrar {
  Registrar(const char* name, std::function<void()> run) { cases().push_back({name, std::move(run)}); }
};

inline void fail(const char* file, int line, const std::string& what) {
  std::printf("%s:%d: %s\n", file, line, what.c_str());
  throw Failed{};
}

template <typename A, typename B>
void check_equal(const char* file, int line, const char* text, const A& a, const B& b) {
  if (a == b) return;
  std::ostringstream out;
  out << text << ": " << a << " and " << b;
  fail(file, line, out.str());
}

inline int run_all(int argc, char** argv) {
  int failed = 0, ran = 0;
  for (const Case& c : cases()) {
    bool wanted = argc < 2;
    for (int i = 1; i < argc; ++i) wanted |= std::strstr(c.name, argv[i]) != nullptr;
    if (!wanted) continue;
    ++ran;
    bool good = false;
    try {
      c.run();
      good = true;
    } catch (const Failed&) {
    } catch (const std::exception& error) {
      std::printf("unexpected: %s\n", error.what());
    }
    std::printf("%s %s\n", good ? "ok  " : "FAIL", c.name);
    std::fflush(stdout);
    failed += !good;
  }
  std::printf("%d of %d passed\n", ran - failed, ran);
  return failed || !ran ? 1 : 0;
}

}  // namespace aesg::testing

#define TEST(name)                                                        \
  static void test_##name();                                              \
  static ::aesg::testing::Registrar registrar_##name(#name, test_##name); \
  static void test_##name()
#define CHECK(condition)                                                               \
  do {                                                                                 \
    if (!(condition)) ::aesg::testing::fail(__FILE__, __LINE__, "false: " #condition); \
  } while (0)
#define CHECK_EQ(a, b) ::aesg::testing::check_equal(__FILE__, __LINE__, #a " == " #b, a, b)
// The expression throws `type` and its message contains `part`.
#define CHECK_THROWS(expression, type, part)                                                       \
  do {                                                                                             \
    std::string message_;                                                                          \
    bool thrown_ = false;                                                                          \
    try {                                                                                          \
      (void)(expression);                                                                          \
    } catch (const type& error_) {                                                                 \
      thrown_ = true;                                                                              \
      message_ = error_.what();                                                                    \
    }                                                                                              \
    if (!thrown_) ::aesg::testing::fail(__FILE__, __LINE__, #expression " did not throw " #type);  \
    if (message_.find(part) == std::string::npos)                                                  \
      ::aesg::testing::fail(__FILE__, __LINE__, "no '" + std::string(part) + "' in: " + message_); \
  } while (0)
