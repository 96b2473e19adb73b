// A kernel in C++: y = a x + y over the work-items of a workgroup.
#include "gpuwm.h"

namespace {

template <typename T> class Span {
public:
    Span(const void *args, int argument) : first_(static_cast<T *>(gpuwm_buffer(args, argument))) {}
    T &operator[](uint32_t i) { return first_[i]; }

private:
    T *first_;
};

} // namespace

GPUWM_KERNEL(saxpy, "buffer buffer f32")
{
    Span<float> x(args, 0), y(args, 1);
    const float a = gpuwm_f32(args, 2);
    const uint32_t size = gpuwm_group(args, 3, 0);
    for (uint32_t i = group_x * size, end = i + size; i < end; i++)
        y[i] += a * x[i];
}
