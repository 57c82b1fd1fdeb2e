#include "doors/vhost/door.h"

#include "sys/thread.h"

namespace godwit::doors::vhost {

Status Door::create_device(const Args& args) {
    device_ = GODWIT_TRY(virtio::BlkDevice::create({.options = args.options,
                                                    .disk = args.disk.view(),
                                                    .loop = args.disk.loop(),
                                                    .health_changed = {}}));
    return ok();
}

Result<std::unique_ptr<Door>> Door::open(Args args) {
    std::unique_ptr<Door> made(new Door(std::move(args.failed)));
    GODWIT_TRY(made->create_device(args));
    made->server_ = GODWIT_TRY(Server::create(args.socket, *made->device_));
    made->begin();
    return made;
}

Result<std::unique_ptr<Door>> Door::adopt(Args args, sys::Fd listening) {
    std::unique_ptr<Door> made(new Door(std::move(args.failed)));
    GODWIT_TRY(made->create_device(args));
    made->server_ = GODWIT_TRY(
        Server::adopt(sys::Listener::adopt(std::move(listening), args.socket), *made->device_));
    return made;
}

Status Door::restore(SavedConversation conversation) {
    return server_->restore(std::move(conversation));
}

void Door::begin() {
    server_->listener().find_path();
    server_->resume();
    thread_ = sys::start_thread("vhost", [this] {
        const Status served = server_->run();
        if (!served.has_value()) {
            failed_(served.error());
        }
    });
}

Result<std::optional<SavedConversation>> Door::freeze(sys::Moment deadline) {
    server_->stop();
    thread_.join();
    return server_->save(deadline);
}

Door::~Door() {
    if (thread_.joinable()) {
        server_->stop();
        thread_.join();
    }
}

} // namespace godwit::doors::vhost
