// Package host is what the drivers of emulated devices share on the host side,
// whatever the vendor: the one goroutine that owns a driver's state (Loop), the device
// memory of kernels and entities (Memory), and how a job becomes a dispatch
// descriptor (Memory.Dispatch, WriteDispatch).
//
// It knows no firmware and no message: what is said to the hardware, and when,
// is the vendor's driver alone. It starts no goroutine but the Loop's.
package host
