// Package device is what the backends of emulated devices share above their
// drivers and firmware emulators: a backend that opens devices, and a device
// that owns one memory file, one engine, one firmware goroutine and one driver.
// What is the vendor's own (options, memory, how driver and firmware are made)
// comes from a Vendor.
//
// The emulated device is all there is so far: the firmware runs in the plugin's
// process. Driver and firmware share the memory file and two signal lines only,
// and each backend has a test that runs them in two processes.
package device
