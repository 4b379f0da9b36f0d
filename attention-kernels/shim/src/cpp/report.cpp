#include "report.h"

#include <cstdarg>
#include <cstdio>

namespace kv_shim {

void Report::clear() {
  findings_.clear();
  seen_.clear();
}

void Report::add(const std::string& what, const std::string& where, const void* code) {
  if (findings_.size() >= kLimit || !seen_.emplace(what, code).second) return;
  findings_.push_back({where + ": " + what, code});
}

std::string text(const char* format, ...) {
  va_list arguments, again;
  va_start(arguments, format);
  va_copy(again, arguments);
  const int length = std::vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::string made(static_cast<std::size_t>(length) + 1, '\0');
  std::vsnprintf(&made[0], made.size(), format, again);
  va_end(again);
  made.pop_back();
  return made;
}

}  // namespace kv_shim
