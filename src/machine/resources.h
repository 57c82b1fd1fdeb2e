#pragma once

/// The named descriptors a machine needs, from its document. Control thread.

#include "machine/machine.h"

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace godwit::machine {

inline constexpr std::string_view ram_resource_name = "ram";
/// The ownership table of the pool that RAM of kind "pool" lies in: whoever has the machine can
/// tell the next godwitd where its memory is.
inline constexpr std::string_view pool_table_resource_name = "pool_table";
[[nodiscard]] std::string disk_resource_name(std::size_t disk);
/// "disk0.delta1"
[[nodiscard]] std::string delta_resource_name(std::size_t disk, std::size_t delta);
[[nodiscard]] std::string net_resource_name(std::size_t net, std::size_t queue_pair);

/// The names of all resources of such a machine, in order.
[[nodiscard]] std::vector<std::string> resource_names(const MachineSpec& spec);
/// invalid_argument naming the first that is missing, double or unknown.
[[nodiscard]] Status check_resources(const MachineSpec& spec, const Resources& resources);
[[nodiscard]] Result<std::reference_wrapper<const sys::Fd>>
find_resource(const Resources& resources, std::string_view name);

} // namespace godwit::machine
