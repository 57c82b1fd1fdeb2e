#include "machine/mirror.h"

#include "machine/machine_impl.h"
#include "machine/resources.h"

#include <sys/stat.h>

#include <xxhash.h>

#include <string>

namespace godwit::machine {

namespace {

/// Numbers and texts one after the other, each with a length where it could run into the next.
class Digest {
  public:
    void add(std::uint64_t value) {
        bytes_.append(reinterpret_cast<const char*>(&value), sizeof(value));
    }
    void add(std::string_view text) {
        add(text.size());
        bytes_ += text;
    }
    [[nodiscard]] std::uint64_t sum() const { return XXH3_64bits(bytes_.data(), bytes_.size()); }

  private:
    std::string bytes_;
};

std::uint64_t digest_of(const Wiring& wiring) {
    Digest digest;
    // What is empty at the end need not have been made yet.
    for (std::size_t i = 0; i < wiring.routes.size(); ++i) {
        if (wiring.routes[i].has_value()) {
            digest.add(i);
            digest.add(wiring.routes[i]->address);
            digest.add(wiring.routes[i]->data);
        }
    }
    digest.add("doorbells");
    for (std::size_t i = 0; i < wiring.doorbells.size(); ++i) {
        if (wiring.doorbells[i].has_value()) {
            digest.add(i);
            digest.add(wiring.doorbells[i]->value);
        }
    }
    return digest.sum();
}

std::uint64_t digest_of_devices(const MachineSpec& spec) {
    Digest digest;
    for (const PlannedDevice& device : plan_devices(spec)) {
        digest.add(device_name(device));
        digest.add(device.slot);
    }
    for (const std::string& name : resource_names(spec)) {
        digest.add(name);
    }
    digest.add(spec.vcpus);
    return digest.sum();
}

} // namespace

Result<MirrorDigest> Machine::mirror(const Wiring& wiring) const {
    const Impl& m = *impl_;
    const sys::Fd& ram = GODWIT_TRY(find_resource(m.resources, ram_resource_name)).get();
    struct stat object{};
    if (::fstat(ram.raw(), &object) != 0) {
        return Error::from_errno(errno, "look at the guest's memory");
    }
    Digest memory;
    memory.add(object.st_dev);
    memory.add(object.st_ino);
    for (const auto& region : m.memory->regions()) {
        memory.add(region.ram.start.value);
        memory.add(region.ram.bytes);
        memory.add(region.ram.offset);
    }
    return MirrorDigest{
        .memory = memory.sum(), .devices = digest_of_devices(m.spec), .wiring = digest_of(wiring)};
}

} // namespace godwit::machine
