package abi

// lengths gives, for the actions with typed bodies, how many dwords follow
// dword 0: at least and at most.
var lengths = map[Action][2]int{
	ActionRegisterContext:          {11, 11},
	ActionDeregisterContext:        {1, 1},
	ActionUpdateContextPolicies:    {1, DwordsMax - 1},
	ActionSchedContext:             {1, 1},
	ActionSchedContextModeSet:      {2, 2},
	ActionSelfCfg:                  {3, 3},
	ActionControlCTB:               {1, 1},
	ActionMatchVersion:             {1, 1},
	ActionQuerySingleKLV:           {1, 1},
	ActionClientSoftReset:          {0, 0},
	ActionUpdateSchedulingPolicies: {0, DwordsMax - 1},
	ActionGlobalSchedPolicyChange:  {1, 1},
	ActionOptInFeature:             {3, 3},
	ActionTLBInvalidation:          {2, 6},
	ActionTLBInvalidationAll:       {2, 2},
	ActionSchedContextModeDone:     {2, 2},
	ActionDeregisterContextDone:    {1, 1},
	ActionContextReset:             {1, 1},
	ActionEngineFailure:            {3, 3},
	ActionCatError:                 {1, 2},
	ActionStateCapture:             {1, 1},
	ActionTLBInvalidationDone:      {1, 1},
	ActionCrashDumpPosted:          {0, 0},
	ActionException:                {0, 0},
	ActionVFControl:                {2, 2},
	ActionVFStateNotify:            {2, 2},
	ActionSaveRestoreVF:            {4, 4},
	ActionResfixStart:              {0, 0},
	ActionResfixDone:               {0, 0},
}

// parseBody decodes the parameters of a request or event. Typed bodies have
// DATA0 = 0, but for those of migration, and the exact length.
func parseBody(h Header, p []uint32) (Body, error) {
	action := h.Action()
	bounds, typed := lengths[action]
	if !typed {
		return Opaque{Opcode: action, Data0: uint16(h.Aux >> 16), Params: clone(p)}, nil
	}
	if len(p) < bounds[0] || len(p) > bounds[1] {
		return nil, wire(ErrorInvalidParams, "%s: %d dwords, want %d to %d", action, len(p)+1, bounds[0]+1, bounds[1]+1)
	}
	switch action {
	case ActionVFControl, ActionVFStateNotify, ActionSaveRestoreVF, ActionResfixStart, ActionResfixDone:
		data0 := h.Aux >> 16
		if body := parseMigrate(action, data0, p); body != nil && body.aux() == h.Aux {
			return body, nil
		}
		return nil, wire(ErrorInvalidParams, "%s: value out of range in DATA0 %#x, %08x", action, data0, p)
	}
	if h.Aux>>16 != 0 {
		return nil, wire(ErrorInvalidParams, "%s: reserved DATA0 %#x set", action, h.Aux>>16)
	}
	if body := parseGUC(action, p); body != nil {
		return body, nil
	}
	return parseHost(action, p)
}

func parseGUC(action Action, p []uint32) Body {
	switch action {
	case ActionSchedContextModeDone:
		if p[1] <= 1 {
			return SchedContextModeDone{ID: GUCID(p[0]), Enabled: p[1] == 1}
		}
	case ActionDeregisterContextDone:
		return DeregisterContextDone{ID: GUCID(p[0])}
	case ActionContextReset:
		return ContextReset{ID: GUCID(p[0])}
	case ActionEngineFailure:
		return EngineFailure{Class: EngineClass(p[0]), Instance: p[1], Reason: p[2]}
	case ActionCatError:
		m := CatError{ID: GUCID(p[0]), Extended: len(p) == 2}
		if m.Extended {
			m.Type = p[1]
		}
		return m
	case ActionStateCapture:
		return StateCapture{Status: p[0]}
	case ActionTLBInvalidationDone:
		return TLBInvalidationDone{Seqno: p[0]}
	case ActionCrashDumpPosted:
		return CrashDumpPosted{}
	case ActionException:
		return Exception{}
	}
	return nil
}

func parseHost(action Action, p []uint32) (Body, error) {
	switch action {
	case ActionRegisterContext:
		return RegisterContext{Flags: p[0], ID: GUCID(p[1]), Class: EngineClass(p[2]), SubmitMask: p[3],
			WQDescriptor: wide(p[4:]), WQBuffer: wide(p[6:]), WQSize: p[8], LRCDescriptor: wide(p[9:])}, nil
	case ActionDeregisterContext:
		return DeregisterContext{ID: GUCID(p[0])}, nil
	case ActionUpdateContextPolicies:
		list, err := ParseKLVs(p[1:])
		return UpdateContextPolicies{ID: GUCID(p[0]), Policies: list}, err
	case ActionSchedContext:
		return SchedContext{ID: GUCID(p[0])}, nil
	case ActionSchedContextModeSet:
		if p[1] <= 1 {
			return SchedContextModeSet{ID: GUCID(p[0]), Enable: p[1] == 1}, nil
		}
	case ActionSelfCfg:
		return SelfCfg{Key: KLVKey(p[0] >> 16), Length: uint16(p[0]), Value: wide(p[1:])}, nil
	case ActionControlCTB:
		if p[0] <= 1 {
			return ControlCTB{Enable: p[0] == 1}, nil
		}
	case ActionMatchVersion:
		return MatchVersion{Version: DecodeVersion(p[0])}, nil
	case ActionQuerySingleKLV:
		if p[0] <= 0xFFFF {
			return QuerySingleKLV{Key: KLVKey(p[0])}, nil
		}
	case ActionClientSoftReset:
		return ClientSoftReset{}, nil
	case ActionUpdateSchedulingPolicies:
		list, err := ParseKLVs(p)
		return UpdateSchedulingPolicies{Policies: list}, err
	case ActionGlobalSchedPolicyChange:
		return GlobalSchedPolicyChange{Block: p[0]}, nil
	case ActionOptInFeature:
		return OptInFeature{Address: wide(p), Dwords: p[2]}, nil
	case ActionTLBInvalidation:
		m := TLBInvalidation{Seqno: p[0], Op: p[1]}
		if m.Ranged() && len(p) == 6 {
			m.ASID, m.Address, m.Order = p[2], wide(p[3:]), p[5]
			return m, nil
		}
		if !m.Ranged() && len(p) == 2 {
			return m, nil
		}
	case ActionTLBInvalidationAll:
		return TLBInvalidationAll{Seqno: p[0], Op: p[1]}, nil
	}
	return nil, wire(ErrorInvalidParams, "%s: value out of range in %08x", action, p)
}

func wide(p []uint32) uint64 { return uint64(p[0]) | uint64(p[1])<<32 }
