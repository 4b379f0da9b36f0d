#include "memory.h"

#include <link.h>

#include <cstring>
#include <utility>

namespace kv_shim {

void GlobalMemory::add(std::uintptr_t begin, std::size_t bytes, const char* name) {
  regions_[begin] = std::make_unique<Region>(Region::Kind::Global, name, begin, bytes);
  last_ = nullptr;
}

void GlobalMemory::remove(std::uintptr_t begin) {
  regions_.erase(begin);
  last_ = nullptr;
}

Region* GlobalMemory::find(std::uintptr_t address) {
  if (last_ != nullptr && last_->contains(address)) return last_;
  auto after = regions_.upper_bound(address);
  if (after == regions_.begin()) return nullptr;
  Region* region = std::prev(after)->second.get();
  if (!region->contains(address)) return nullptr;
  last_ = region;
  return region;
}

void GlobalMemory::forget_accesses() {
  for (auto& region : regions_) region.second->forget_accesses();
}

namespace {

constexpr std::size_t kAlign = 256;
constexpr std::size_t kGap = 256;
constexpr std::size_t kDynamicRoom = SharedMemory::kTotalLimit + kGap;
// Room for static arrays with their gaps and alignment, however small they are cut.
constexpr std::size_t kStaticRoom = SharedMemory::kStaticLimit * 16;
// All bits set is a NaN in every float type, and no plausible index.
constexpr int kPoison = 0xff;

alignas(kAlign) unsigned char arena[kDynamicRoom + kStaticRoom];

std::uintptr_t arena_begin() { return reinterpret_cast<std::uintptr_t>(arena); }

}  // namespace

void SharedMemory::renew(Region& region) {
  std::memset(reinterpret_cast<void*>(region.begin()), kPoison, region.bytes());
  region.set_initialised(region.begin(), region.bytes(), false);
}

void SharedMemory::begin_launch(std::size_t dynamic) {
  arrays_.clear();
  used_ = 0;
  dynamic_bytes_ = dynamic;
  dynamic_ = std::make_unique<Region>(Region::Kind::Shared, "dynamic", arena_begin(), dynamic);
}

void SharedMemory::begin_block() {
  static_bytes_ = 0;
  for (Array& array : arrays_) array.live = false;
  renew(*dynamic_);
}

void* SharedMemory::array(const void* key, const char* name, std::size_t bytes, std::size_t align) {
  auto it = arrays_.begin();
  while (it != arrays_.end() && it->key != key) ++it;
  if (it != arrays_.end() && it->live) return reinterpret_cast<void*>(it->region->begin());

  static_bytes_ = (static_bytes_ + align - 1) / align * align + bytes;
  if (static_bytes_ > kStaticLimit || static_bytes_ + dynamic_bytes_ > kTotalLimit) return nullptr;
  if (it == arrays_.end()) {
    const std::size_t room = (bytes + kGap + kAlign - 1) / kAlign * kAlign;
    if (used_ + room > kStaticRoom) return nullptr;
    const std::uintptr_t begin = arena_begin() + kDynamicRoom + used_;
    arrays_.push_back({key, std::make_unique<Region>(Region::Kind::Shared, name, begin, bytes), false});
    used_ += room;
    it = std::prev(arrays_.end());
  }
  it->live = true;
  renew(*it->region);
  return reinterpret_cast<void*>(it->region->begin());
}

void* SharedMemory::dynamic() const { return arena; }

bool SharedMemory::contains(std::uintptr_t address) const {
  return arena_begin() <= address && address < arena_begin() + sizeof(arena);
}

Region* SharedMemory::find(std::uintptr_t address) {
  if (dynamic_ && dynamic_->contains(address)) return dynamic_.get();
  for (Array& array : arrays_) {
    if (array.live && array.region->contains(address)) return array.region.get();
  }
  return nullptr;
}

namespace {

struct Image {
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> segments;
};

// Takes the segments of the object that holds this library, and with it the kernels.
int collect(dl_phdr_info* object, std::size_t, void* data) {
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> segments;
  bool ours = false;
  for (int i = 0; i < object->dlpi_phnum; i++) {
    const auto& header = object->dlpi_phdr[i];
    if (header.p_type != PT_LOAD) continue;
    const std::uintptr_t begin = object->dlpi_addr + header.p_vaddr;
    segments.emplace_back(begin, begin + header.p_memsz);
    ours = ours || (begin <= arena_begin() && arena_begin() < begin + header.p_memsz);
  }
  if (ours) static_cast<Image*>(data)->segments = std::move(segments);
  return ours;
}

const Image& image() {
  static const Image found = [] {
    Image image;
    dl_iterate_phdr(collect, &image);
    return image;
  }();
  return found;
}

}  // namespace

bool in_program_image(std::uintptr_t address) {
  for (const auto& segment : image().segments) {
    if (segment.first <= address && address < segment.second) return true;
  }
  return false;
}

}  // namespace kv_shim
