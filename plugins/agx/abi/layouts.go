package abi

// versions are the tables. Generation and firmware are the key; what differs
// between the firmwares of G13 stands side by side here.
var versions = map[Version]func() *ABI{
	{Generation: G13, Firmware: V12_3}: func() *ABI {
		a := &ABI{numbers: numbers{
			PipeEntry: 0x30, DeviceControlEntry: 0x30, EventEntry: 0x38, StatsEntry: 0x30,
			controlNumbers: controlNumbers123, pendingShift: 3, globals: globals123,
		}, records: common}
		a.initData, a.queueInfo, a.destroyContext = initData(0), queueInfo123, destroyContext123
		a.notifier, a.runCompute, a.opTimestamp, a.stat = notifier(0), runCompute(0), opTimestamp(0), stat(a.StatsEntry)
		return a
	},
	{Generation: G13, Firmware: V13_5}: func() *ABI {
		a := &ABI{numbers: numbers{
			PipeEntry: 0x30, DeviceControlEntry: 0x30, EventEntry: 0x38, StatsEntry: 0x40,
			controlNumbers: controlNumbers135, pendingShift: 4, globals: globals135,
		}, records: common}
		a.initData, a.queueInfo, a.destroyContext = initData(8), queueInfo135, destroyContext135
		a.notifier, a.runCompute, a.opTimestamp, a.stat = notifier(8), runCompute(8), opTimestamp(8), stat(a.StatsEntry)
		return a
	},
}

// common are the layouts that both versions have.
var common = records{
	runtimePointers: runtimePointers, runWorkQueue: runWorkQueue, gpuContext: gpuContext, notifierList: notifierList, barrier: barrier,
	control: controlPlain, recoverChannel: recoverChannel, write32: write32,
	event: eventFault, flag: eventFlag, timeout: eventTimeout, channelError: eventChannelError,
	logIndex: logIndex, logPayload: logPayload,
	opStart: opStart, opWait: opWait, opFinalize: opFinalize, opRetire: opRetire,
	opWrite32: opWrite32, opWrite64: opWrite64, opRead: opRead, opALU: opALU, opStamp: opStamp,
}
