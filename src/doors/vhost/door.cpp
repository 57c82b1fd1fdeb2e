#include "doors/vhost/door.h"

#include "sys/thread.h"

namespace godwit::doors::vhost {

Result<std::unique_ptr<Door>> Door::open(Args args) {
    std::unique_ptr<Door> made(new Door());
    made->device_ = GODWIT_TRY(virtio::BlkDevice::create({.options = args.options,
                                                          .disk = args.disk.view(),
                                                          .loop = args.disk.loop(),
                                                          .health_changed = {}}));
    made->server_ = GODWIT_TRY(Server::create(args.socket, *made->device_));
    made->thread_ =
        sys::start_thread("vhost", [server = made->server_.get(), failed = std::move(args.failed)] {
            const Status served = server->run();
            if (!served.has_value()) {
                failed(served.error());
            }
        });
    return made;
}

Door::~Door() {
    if (thread_.joinable()) {
        server_->stop();
        thread_.join();
    }
}

} // namespace godwit::doors::vhost
