// What a launch found.
#pragma once

#include <cstddef>
#include <set>
#include <string>
#include <vector>

namespace kv_shim {

struct Finding {
  std::string text;
  const void* code;  // the instruction that did it, where that is known
};

// The findings of one launch. Of findings that differ in the thread only, the first is kept.
class Report {
 public:
  static constexpr std::size_t kLimit = 100;

  void clear();
  // `what` is the same for every thread that does the same wrong thing at `code`; `where` says which thread, and what else it knows.
  void add(const std::string& what, const std::string& where, const void* code);
  const std::vector<Finding>& findings() const { return findings_; }

 private:
  std::vector<Finding> findings_;
  std::set<std::pair<std::string, const void*>> seen_;
};

// Text as `printf` makes it.
[[gnu::format(printf, 1, 2)]] std::string text(const char* format, ...);

}  // namespace kv_shim
