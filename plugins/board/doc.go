// Package board is what the backends of emulated devices share where they join
// driver, firmware and engine: what stands in a device's options (Options), the
// engine under the firmware (Engines), and the device as the SDK sees it, with an order in which it
// is closed (Device).
//
// It knows no vendor: the three parts come from the backend's own package. Only packages that join
// them import it, never a driver or a firmware.
package board
