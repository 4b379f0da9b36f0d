// Calls the engine's kernels by the C functions that the engine calls.
//
// `driver FOLDER` reads `FOLDER/call.txt`, lines of `name value`, and buffers from files beside it; writes results there. Exits
// with 1, and findings on standard error, where the kernels did something wrong.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>

#include "engine_compat.h"

// The engine's functions, with parameters named as we call them. Element types: 0 is f16, 1 bf16, 2 f32.
extern "C" {

void reshape_and_cache(void* keys, void* values, void* key_cache, void* value_cache, std::int64_t* slots, std::int32_t tokens,
                       std::int32_t heads, std::int32_t head_dim, std::int32_t block, std::int32_t x, std::int32_t key_stride,
                       std::int32_t value_stride, cudaStream_t stream, std::uint32_t dtype, std::uint32_t cache_dtype,
                       float* key_scale, float* value_scale);

#define ATTENTION_TAIL                                                                                                       \
  void *query, void *key_cache, void *value_cache, void *alibi, std::int32_t kv_heads, float scale, float softcap,           \
      std::uint32_t *tables, std::uint32_t *lens, std::int32_t block, std::int32_t max_len, std::int32_t seqs,               \
      std::int32_t heads, std::int32_t head_dim, std::int32_t table_width, std::int32_t query_stride,                        \
      std::int32_t page_stride, std::int32_t head_stride, cudaStream_t stream, std::uint32_t cache_dtype, float *key_scale,  \
      float *value_scale, const float *sinks
#define ATTENTION(type)                                     \
  void paged_attention_v1_##type(void* out, ATTENTION_TAIL); \
  void paged_attention_v2_##type(void* out, float* sums, float* maxima, void* partial, ATTENTION_TAIL);
ATTENTION(f16)
ATTENTION(bf16)
ATTENTION(f32)

// Of the shim.
void kv_shim_register(const void* memory, std::size_t bytes, const char* name);
void kv_shim_set_initialised(const void* memory, std::size_t bytes);
void kv_shim_set_order(std::uint32_t order, std::uint64_t seed);
const char* kv_shim_finding(std::size_t index);
}

std::size_t engine_findings = 0;

void engine_report() {
  std::fprintf(stderr, "%s\n", kv_shim_finding(0));
  engine_findings++;
}

namespace {

// A buffer that the detector knows, aligned as device memory is.
class Buffer {
 public:
  Buffer(const std::string& name, std::size_t bytes) : bytes_(bytes) {
    constexpr std::size_t kAlign = 256;
    // Two more units: the buffer's neighbours belong to nobody.
    memory_.reset(static_cast<char*>(std::aligned_alloc(kAlign, (bytes / kAlign + 2) * kAlign)));
    kv_shim_register(memory_.get(), bytes, name.c_str());
  }

  static Buffer from_file(const std::string& folder, const std::string& name) {
    std::ifstream file(folder + "/" + name, std::ios::binary);
    if (!file) throw std::runtime_error("no file " + folder + "/" + name);
    const std::string bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    Buffer buffer(name, bytes.size());
    bytes.copy(buffer.memory_.get(), bytes.size());
    kv_shim_set_initialised(buffer.memory_.get(), bytes.size());
    return buffer;
  }

  void to_file(const std::string& folder, const std::string& name) const {
    std::ofstream file(folder + "/" + name, std::ios::binary);
    file.write(memory_.get(), static_cast<std::streamsize>(bytes_));
    if (!file) throw std::runtime_error("cannot write " + folder + "/" + name);
  }

  template <class T = void>
  T* as() const { return reinterpret_cast<T*>(memory_.get()); }

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  std::size_t bytes_;
};

// The numbers of `call.txt`.
class Call {
 public:
  explicit Call(const std::string& folder) {
    std::ifstream file(folder + "/call.txt");
    std::string name;
    double value;
    while (file >> name >> value) numbers_[name] = value;
  }
  double real(const std::string& name) const {
    const auto it = numbers_.find(name);
    if (it == numbers_.end()) throw std::runtime_error("call.txt has no " + name);
    return it->second;
  }
  std::int32_t integer(const std::string& name) const { return static_cast<std::int32_t>(real(name)); }

 private:
  std::map<std::string, double> numbers_;
};

void write_rows(const Call& call, const std::string& folder) {
  const Buffer keys = Buffer::from_file(folder, "keys"), values = Buffer::from_file(folder, "values");
  const Buffer key_cache = Buffer::from_file(folder, "key_cache"), value_cache = Buffer::from_file(folder, "value_cache");
  const Buffer slots = Buffer::from_file(folder, "slots");
  const std::int32_t head_dim = call.integer("head_dim");
  const auto dtype = static_cast<std::uint32_t>(call.integer("dtype"));
  reshape_and_cache(keys.as(), values.as(), key_cache.as(), value_cache.as(), slots.as<std::int64_t>(), call.integer("rows"), 1,
                    head_dim, call.integer("block"), call.integer("x"), head_dim, head_dim, nullptr, dtype, dtype, nullptr,
                    nullptr);
  key_cache.to_file(folder, "key_cache.out");
  value_cache.to_file(folder, "value_cache.out");
}

void attend(const Call& call, const std::string& folder) {
  const std::int32_t seqs = call.integer("heads"), group = call.integer("group"), head_dim = call.integer("head_dim");
  const std::int32_t block = call.integer("block"), max_len = call.integer("max_len"), dtype = call.integer("dtype");
  const std::size_t rows = static_cast<std::size_t>(seqs) * group, element = dtype == 2 ? 4 : 2;
  const std::size_t parts = (max_len + 511) / 512;
  const Buffer query = Buffer::from_file(folder, "queries");
  const Buffer key_cache = Buffer::from_file(folder, "key_cache"), value_cache = Buffer::from_file(folder, "value_cache");
  const Buffer tables = Buffer::from_file(folder, "tables"), lens = Buffer::from_file(folder, "lens");
  const Buffer out("out", rows * head_dim * element), partial("partial", rows * parts * head_dim * element);
  const Buffer sums("sums", rows * parts * 4), maxima("maxima", rows * parts * 4);
#define TAIL                                                                                                                \
  query.as(), key_cache.as(), value_cache.as(), nullptr, 1, static_cast<float>(call.real("scale")), 1.0f,                   \
      tables.as<std::uint32_t>(), lens.as<std::uint32_t>(), block, max_len, seqs, group, head_dim,                          \
      call.integer("table_width"), group * head_dim, head_dim * block, head_dim * block, nullptr,                           \
      static_cast<std::uint32_t>(dtype), nullptr, nullptr, nullptr
#define ATTEND(type)                                                                                       \
  if (call.integer("version") == 1) {                                                                      \
    paged_attention_v1_##type(out.as(), TAIL);                                                             \
  } else {                                                                                                 \
    paged_attention_v2_##type(out.as(), sums.as<float>(), maxima.as<float>(), partial.as(), TAIL);         \
  }
  if (dtype == 0) { ATTEND(f16) }
  if (dtype == 1) { ATTEND(bf16) }
  if (dtype == 2) { ATTEND(f32) }
  out.to_file(folder, "out");
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fprintf(stderr, "usage: driver FOLDER\n");
    return 2;
  }
  try {
    const std::string folder = arguments[1];
    const Call call(folder);
    kv_shim_set_order(static_cast<std::uint32_t>(call.integer("order")), 7);
    if (call.integer("version") == 0) {
      write_rows(call, folder);
    } else {
      attend(call, folder);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 2;
  }
  return engine_findings == 0 ? 0 : 1;
}
