#include "vmm/consoles.h"

#include "state/consoles.pb.h"
#include "state/section_codec.h"

namespace godwit::vmm {

Consoles::Consoles(sys::EventLoop& loop, const machine::MachineSpec& spec, Input input)
    : loop_(loop) {
    const auto add = [&](const std::string& name) {
        ports_.emplace(
            name,
            std::make_unique<ConsolePort>(loop, [name, input](std::span<const std::byte> bytes) {
                return input(name, bytes);
            }));
    };
    if (spec.serial) {
        add("serial");
    }
    if (spec.virtio_console) {
        add("virtio");
    }
}

Status Consoles::listen(const std::string& directory) {
    for (auto& [name, port] : ports_) {
        const std::string path = directory + "/console-" + name + ".sock";
        GODWIT_TRY(port->listen(path));
        paths_[name] = path;
    }
    return ok();
}

void Consoles::write(std::string_view port, std::span<const std::byte> bytes) {
    const auto found = ports_.find(port);
    if (found != ports_.end()) {
        found->second->write(bytes);
    }
}

void Consoles::input_ready(std::string_view port) {
    const auto found = ports_.find(port);
    if (found != ports_.end()) {
        found->second->input_ready();
    }
}

void Consoles::close() {
    for (auto& [name, port] : ports_) {
        port->close();
    }
}

void Consoles::flush_all() {
    for (auto& [name, port] : ports_) {
        port->flush_all();
    }
}

void Consoles::freeze() {
    loop_.run_and_wait([this] {
        for (auto& [name, port] : ports_) {
            port->freeze();
        }
    });
}

void Consoles::thaw() {
    loop_.run_and_wait([this] { thaw_here(); });
}

void Consoles::thaw_here() {
    for (auto& [name, port] : ports_) {
        port->thaw();
    }
}

namespace {

std::string descriptor_name(const std::string& port, std::size_t index) {
    return "console-" + port + "." + std::to_string(index);
}

} // namespace

// Frozen: the loop's thread changes nothing any more, so both read from here.
Result<sys::FdManifest> Consoles::descriptors() const {
    sys::FdManifest manifest;
    for (const auto& [name, port] : ports_) {
        ConsolePortState state = GODWIT_TRY(port->save());
        for (std::size_t i = 0; i < state.clients.size(); ++i) {
            GODWIT_TRY(manifest.add(descriptor_name(name, i), std::move(state.clients[i].fd)));
        }
    }
    return manifest;
}

Result<state::Saved> Consoles::save() const {
    state::Consoles message;
    for (const auto& [name, port] : ports_) {
        const ConsolePortState state = GODWIT_TRY(port->save());
        auto& saved = *message.add_ports();
        saved.set_name(name);
        saved.set_backlog(state.backlog);
        saved.set_backlog_offset(state.backlog_offset);
        saved.set_read_offset(state.read_offset);
        for (std::size_t i = 0; i < state.clients.size(); ++i) {
            auto& client = *saved.add_clients();
            client.set_descriptor(descriptor_name(name, i));
            client.set_offset(state.clients[i].offset);
            client.set_pending_input(state.clients[i].pending_input);
        }
    }
    return state::encode_section(section_type(), 0, message);
}

namespace {

Result<ConsolePortState> port_from(const state::ConsolePort& saved, sys::FdManifest& descriptors) {
    const std::uint64_t end = saved.backlog_offset() + saved.backlog().size();
    if (saved.backlog().size() > backlog_bytes_max || end < saved.backlog_offset() ||
        saved.read_offset() > end || saved.clients_size() > static_cast<int>(console_clients_max)) {
        return Error(ErrorCode::corrupt,
                     "section vmm-consoles#0: port '" + saved.name() + "' has impossible offsets");
    }
    ConsolePortState state{.backlog = saved.backlog(),
                           .backlog_offset = saved.backlog_offset(),
                           .read_offset = saved.read_offset()};
    for (const state::ConsoleClient& client : saved.clients()) {
        if (client.offset() > end) {
            return Error(ErrorCode::corrupt,
                         "section vmm-consoles#0: a client has read more than was printed");
        }
        state.clients.push_back({.fd = GODWIT_TRY(descriptors.take(client.descriptor())),
                                 .offset = client.offset(),
                                 .pending_input = client.pending_input()});
    }
    return state;
}

} // namespace

Status Consoles::adopt(const state::Section& saved, sys::FdManifest descriptors) {
    const auto message = GODWIT_TRY(state::decode_section<state::Consoles>(section_type(), saved));
    std::map<std::string, ConsolePortState> states;
    for (const state::ConsolePort& port : message.ports()) {
        if (!ports_.contains(port.name())) {
            return state::bad_section(
                saved, "it holds a console '" + port.name() + "' the machine has not");
        }
        states[port.name()] = GODWIT_TRY(port_from(port, descriptors));
    }
    for (auto& [name, state] : states) {
        ports_.find(name)->second->adopt(std::move(state));
    }
    return ok();
}

} // namespace godwit::vmm
