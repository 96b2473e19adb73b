package abi

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// Generation is a family of GPUs.
type Generation string

// The generations with a table.
const G13 Generation = "G13" // M1

// Firmware is a firmware version, for instance "13.5".
type Firmware string

// The firmware versions with a table.
const (
	V12_3 Firmware = "12.3"
	V13_5 Firmware = "13.5"
)

// Version says which interface is spoken.
type Version struct {
	Generation Generation
	Firmware   Firmware
	// QueueInfoM1N1 puts the word that 13.2 added to QueueInfo where m1n1 has it
	// (0xa0) instead of where the driver has it (0x84). The sources differ.
	QueueInfoM1N1 bool
}

// Target is the version that this project speaks unless configured.
var Target = Version{Generation: G13, Firmware: V13_5}

// String is generation and firmware.
func (v Version) String() string { return string(v.Generation) + "/" + string(v.Firmware) }

// ABI is the interface of one version. It never changes after For.
type ABI struct {
	Version Version
	numbers
	records
}

// numbers are what else differs between versions.
type numbers struct {
	// PipeEntry and so on are the sizes of ring entries.
	PipeEntry, DeviceControlEntry, EventEntry, StatsEntry uint32
	// controlNumbers gives each device-control message its number.
	controlNumbers map[ControlType]uint32
	// pendingShift is where the slot begins in the info of a pending stamp.
	pendingShift uint32
	globals      globalTable
}

// records are the layouts.
type records struct {
	initData, runtimePointers, runWorkQueue, queueInfo, gpuContext, notifier, notifierList, runCompute, barrier record
	control, recoverChannel, destroyContext, write32                                                            record
	event, flag, timeout, channelError, logIndex, logPayload, stat                                              record
	opStart, opTimestamp, opWait, opFinalize, opRetire, opWrite32, opWrite64, opRead, opALU, opStamp            record
}

// For returns the interface of a version. Errors wrap ErrVersion.
func For(v Version) (*ABI, error) {
	make, ok := versions[Version{Generation: v.Generation, Firmware: v.Firmware}]
	if !ok {
		return nil, fmt.Errorf("%w: %s", ErrVersion, v)
	}
	a := make()
	a.Version = v
	if v.QueueInfoM1N1 && v.Firmware == V13_5 {
		a.queueInfo = queueInfo135m1n1
	}
	return a, nil
}

// Versions lists the versions that have a table, in order.
func Versions() []Version {
	return slices.SortedFunc(maps.Keys(versions), func(a, b Version) int { return cmp.Compare(a.String(), b.String()) })
}
