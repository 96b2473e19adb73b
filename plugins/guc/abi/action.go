package abi

import "fmt"

// Action is the opcode of a request or event, 16 bits.
type Action uint16

// The actions, host to GuC (H2G) unless the comment says otherwise. "M" marks
// those that the MMIO mailbox takes.
const (
	ActionRequestEngineReset       Action = 0x0003 // Legacy.
	ActionAllocateDoorbell         Action = 0x0010 // Legacy.
	ActionDeallocateDoorbell       Action = 0x0020 // Legacy.
	ActionLogFlushComplete         Action = 0x0030
	ActionForceLogFlush            Action = 0x0302
	ActionEnterSState              Action = 0x0501 // Legacy.
	ActionExitSState               Action = 0x0502 // Legacy.
	ActionSetSchedulingMode        Action = 0x0504
	ActionGlobalSchedPolicyChange  Action = 0x0506
	ActionSelfCfg                  Action = 0x0508 // M.
	ActionUpdateSchedulingPolicies Action = 0x0509
	ActionSchedContext             Action = 0x1000
	ActionSchedContextModeSet      Action = 0x1001
	ActionSchedContextModeDone     Action = 0x1002 // G2H.
	ActionSchedEngineModeSet       Action = 0x1003
	ActionSchedEngineModeDone      Action = 0x1004 // G2H.
	ActionSetContextPriority       Action = 0x1005
	ActionSetContextQuantum        Action = 0x1006
	ActionSetContextPreemption     Action = 0x1007
	ActionContextReset             Action = 0x1008 // G2H.
	ActionEngineFailure            Action = 0x1009 // G2H.
	ActionUpdateContextPolicies    Action = 0x100B
	ActionAuthenticateHuC          Action = 0x4000
	ActionGetHWConfig              Action = 0x4100 // M.
	ActionRegisterContext          Action = 0x4502
	ActionDeregisterContext        Action = 0x4503
	ActionRegisterCTB              Action = 0x4505 // Legacy.
	ActionDeregisterCTB            Action = 0x4506 // Legacy.
	ActionRegisterG2G              Action = 0x4507
	ActionDeregisterG2G            Action = 0x4508
	ActionControlCTB               Action = 0x4509 // M.
	ActionDeregisterContextDone    Action = 0x4600 // G2H.
	ActionRegisterContextMultiLRC  Action = 0x4601
	ActionRegisterMultiQueue       Action = 0x4602
	ActionMultiQueueCGPSync        Action = 0x4603
	ActionCGPSyncDone              Action = 0x4604 // G2H.
	ActionCGPContextError          Action = 0x4605 // G2H.
	ActionGUC2PFRelay              Action = 0x5100 // G2H.
	ActionPF2GUCRelay              Action = 0x5101
	ActionGUC2VFRelay              Action = 0x5102 // G2H.
	ActionVF2GUCRelay              Action = 0x5103
	ActionAdverseEvent             Action = 0x5104 // G2H.
	ActionVFStateNotify            Action = 0x5106 // G2H.
	ActionMatchVersion             Action = 0x5500 // M.
	ActionUpdateVGTPolicy          Action = 0x5502
	ActionUpdateVFCfg              Action = 0x5503
	ActionVFControl                Action = 0x5506
	ActionClientSoftReset          Action = 0x5507 // M.
	ActionResfixDone               Action = 0x5508 // M.
	ActionQuerySingleKLV           Action = 0x5509 // M.
	ActionSetEngineUtilBuffer      Action = 0x550A
	ActionSaveRestoreVF            Action = 0x550B
	ActionSetDeviceActivity        Action = 0x550C
	ActionSetFunctionActivity      Action = 0x550D
	ActionOptInFeature             Action = 0x550E
	ActionResfixStart              Action = 0x550F // M.
	ActionCatError                 Action = 0x6000 // G2H.
	ActionPageFaultReq             Action = 0x6002 // G2H.
	ActionPageFaultRes             Action = 0x6003
	ActionAccessCounter            Action = 0x6004 // G2H.
	ActionTLBInvalidation          Action = 0x7000
	ActionTLBInvalidationDone      Action = 0x7001 // G2H.
	ActionTLBInvalidationAll       Action = 0x7002
	ActionPageReclamation          Action = 0x7003
	ActionPageReclamationDone      Action = 0x7004 // G2H.
	ActionStateCapture             Action = 0x8002 // G2H.
	ActionFlushLogBuffer           Action = 0x8003 // G2H.
	ActionCrashDumpPosted          Action = 0x8004 // G2H.
	ActionException                Action = 0x8005 // G2H.
)

var actionNames = map[Action]string{
	ActionRequestEngineReset: "REQUEST_ENGINE_RESET", ActionAllocateDoorbell: "ALLOCATE_DOORBELL",
	ActionDeallocateDoorbell: "DEALLOCATE_DOORBELL", ActionLogFlushComplete: "LOG_BUFFER_FILE_FLUSH_COMPLETE",
	ActionForceLogFlush: "FORCE_LOG_BUFFER_FLUSH", ActionEnterSState: "ENTER_S_STATE", ActionExitSState: "EXIT_S_STATE",
	ActionSetSchedulingMode: "SET_SCHEDULING_MODE", ActionGlobalSchedPolicyChange: "GLOBAL_SCHED_POLICY_CHANGE",
	ActionSelfCfg: "SELF_CFG", ActionUpdateSchedulingPolicies: "UPDATE_SCHEDULING_POLICIES_KLV",
	ActionSchedContext: "SCHED_CONTEXT", ActionSchedContextModeSet: "SCHED_CONTEXT_MODE_SET",
	ActionSchedContextModeDone: "SCHED_CONTEXT_MODE_DONE", ActionSchedEngineModeSet: "SCHED_ENGINE_MODE_SET",
	ActionSchedEngineModeDone: "SCHED_ENGINE_MODE_DONE", ActionSetContextPriority: "SET_CONTEXT_PRIORITY",
	ActionSetContextQuantum: "SET_CONTEXT_EXECUTION_QUANTUM", ActionSetContextPreemption: "SET_CONTEXT_PREEMPTION_TIMEOUT",
	ActionContextReset: "CONTEXT_RESET_NOTIFICATION", ActionEngineFailure: "ENGINE_FAILURE_NOTIFICATION",
	ActionUpdateContextPolicies: "UPDATE_CONTEXT_POLICIES", ActionAuthenticateHuC: "AUTHENTICATE_HUC",
	ActionGetHWConfig: "GET_HWCONFIG", ActionRegisterContext: "REGISTER_CONTEXT", ActionDeregisterContext: "DEREGISTER_CONTEXT",
	ActionRegisterCTB: "REGISTER_CTB", ActionDeregisterCTB: "DEREGISTER_CTB", ActionRegisterG2G: "REGISTER_G2G",
	ActionDeregisterG2G: "DEREGISTER_G2G", ActionControlCTB: "CONTROL_CTB", ActionDeregisterContextDone: "DEREGISTER_CONTEXT_DONE",
	ActionRegisterContextMultiLRC: "REGISTER_CONTEXT_MULTI_LRC", ActionRegisterMultiQueue: "REGISTER_CONTEXT_MULTI_QUEUE",
	ActionMultiQueueCGPSync: "MULTI_QUEUE_CONTEXT_CGP_SYNC", ActionCGPSyncDone: "NOTIFY_MULTI_QUEUE_CGP_SYNC_DONE",
	ActionCGPContextError: "NOTIFY_MULTI_QUEUE_CGP_CONTEXT_ERROR", ActionGUC2PFRelay: "GUC2PF_RELAY",
	ActionPF2GUCRelay: "PF2GUC_RELAY", ActionGUC2VFRelay: "GUC2VF_RELAY", ActionVF2GUCRelay: "VF2GUC_RELAY",
	ActionAdverseEvent: "ADVERSE_EVENT", ActionVFStateNotify: "VF_STATE_NOTIFY", ActionMatchVersion: "MATCH_VERSION",
	ActionUpdateVGTPolicy: "UPDATE_VGT_POLICY", ActionUpdateVFCfg: "UPDATE_VF_CFG", ActionVFControl: "VF_CONTROL",
	ActionClientSoftReset: "CLIENT_SOFT_RESET", ActionResfixDone: "RESFIX_DONE", ActionQuerySingleKLV: "QUERY_SINGLE_KLV",
	ActionSetEngineUtilBuffer: "SET_ENG_UTIL_BUFF", ActionSaveRestoreVF: "SAVE_RESTORE_VF",
	ActionSetDeviceActivity: "SET_DEVICE_ENGINE_ACTIVITY_BUFFER", ActionSetFunctionActivity: "SET_FUNCTION_ENGINE_ACTIVITY_BUFFER",
	ActionOptInFeature: "OPT_IN_FEATURE_KLV", ActionResfixStart: "RESFIX_START", ActionCatError: "NOTIFY_MEMORY_CAT_ERROR",
	ActionPageFaultReq: "REPORT_PAGE_FAULT", ActionPageFaultRes: "PAGE_FAULT_RES", ActionAccessCounter: "ACCESS_COUNTER_NOTIFY",
	ActionTLBInvalidation: "TLB_INVALIDATION", ActionTLBInvalidationDone: "TLB_INVALIDATION_DONE",
	ActionTLBInvalidationAll: "TLB_INVALIDATION_ALL", ActionPageReclamation: "PAGE_RECLAMATION",
	ActionPageReclamationDone: "PAGE_RECLAMATION_DONE", ActionStateCapture: "STATE_CAPTURE_NOTIFICATION",
	ActionFlushLogBuffer: "NOTIFY_FLUSH_LOG_BUFFER_TO_FILE", ActionCrashDumpPosted: "NOTIFY_CRASH_DUMP_POSTED",
	ActionException: "NOTIFY_EXCEPTION",
}

// Known reports whether the opcode stands in the map above.
func (a Action) Known() bool { return actionNames[a] != "" }

// String names the action, or gives its number.
func (a Action) String() string {
	if name := actionNames[a]; name != "" {
		return name
	}
	return fmt.Sprintf("action %#x", uint16(a))
}
