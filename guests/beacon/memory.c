#include "memory.h"

void* memcpy(void* restrict to, const void* restrict from, size_t bytes) {
    void* destination = to;
    __asm__ volatile("rep movsb" : "+D"(destination), "+S"(from), "+c"(bytes) : : "memory");
    return to;
}

void* memmove(void* to, const void* from, size_t bytes) {
    uint8_t* destination = to;
    const uint8_t* source = from;
    if (destination <= source) {
        return memcpy(to, from, bytes);
    }
    while (bytes-- > 0) {
        destination[bytes] = source[bytes];
    }
    return to;
}

void* memset(void* to, int value, size_t bytes) {
    void* destination = to;
    __asm__ volatile("rep stosb" : "+D"(destination), "+c"(bytes) : "a"(value) : "memory");
    return to;
}

int memcmp(const void* left, const void* right, size_t bytes) {
    const uint8_t* a = left;
    const uint8_t* b = right;
    for (size_t i = 0; i < bytes; ++i) {
        if (a[i] != b[i]) {
            return a[i] < b[i] ? -1 : 1;
        }
    }
    return 0;
}

uint32_t fnv1a32(const void* data, size_t bytes) {
    const uint8_t* cursor = data;
    uint32_t hash = 0x811c9dc5;
    for (size_t i = 0; i < bytes; ++i) {
        hash = (hash ^ cursor[i]) * 0x01000193;
    }
    return hash;
}
