package fw

import (
	"fmt"
	"slices"

	"github.com/gpuwm/gpuwm/plugins/guc/abi"
	"github.com/gpuwm/gpuwm/plugins/hw"
)

// seqnoMax is the largest number of a TLB invalidation.
const seqnoMax = 0xFFFFF

// registerWords is the length of a context's register page.
const registerWords = uint32(hw.PageSize / 4)

// handle carries out one H2G message and returns its reply; receive decides by
// the message's type whether the reply is sent.
func (f *Firmware) handle(p abi.Packet) abi.Packet {
	if f.function.state != functionRunning && !slices.Contains(owners, p.Body.Action()) {
		return f.refusal(MisusePaused)
	}
	switch m := p.Body.(type) {
	case abi.RegisterContext:
		return f.register(m)
	case abi.UpdateContextPolicies:
		return f.updatePolicies(m)
	case abi.SchedContextModeSet:
		return f.modeSet(m)
	case abi.SchedContext:
		return f.schedContext(m)
	case abi.DeregisterContext:
		return f.deregister(m)
	case abi.UpdateSchedulingPolicies:
		return f.globalPolicies(m)
	case abi.GlobalSchedPolicyChange:
		return f.policyBlock(m)
	case abi.OptInFeature:
		return f.optIn(m)
	case abi.TLBInvalidation:
		return f.invalidate(m.Seqno)
	case abi.TLBInvalidationAll:
		return f.invalidate(m.Seqno)
	case abi.SelfCfg:
		return f.selfCfg(m)
	case abi.SaveRestoreVF:
		return f.saveRestore(m)
	}
	return f.refuse(p.Body.Action())
}

func failure(code abi.ErrorCode) abi.Packet { return abi.FailureReply(code, 0) }

// register makes a context known. It becomes disabled.
func (f *Firmware) register(m abi.RegisterContext) abi.Packet {
	if m.ID < abi.GUCIDMax {
		if g := f.contexts[m.ID]; g != nil && g.state == contextDeregistering {
			return f.refusal(MisuseDeregistering)
		} else if g != nil {
			return f.refusal(MisuseRegistered)
		}
	}
	if m.Flags&^abi.ContextFlagKMD != 0 || m.WQDescriptor != 0 || m.WQBuffer != 0 || m.WQSize != 0 {
		return f.refusal(MisuseRegistration)
	}
	lrc, err := abi.DecodeLRCDescriptor(m.LRCDescriptor)
	if err != nil {
		lrc = abi.LRCDescriptor{} // No context lies there.
	}
	g, code := f.newContext(m.ID, m.Class, m.SubmitMask, lrc)
	if g == nil {
		return failure(code)
	}
	f.contexts[m.ID] = g
	f.note("CTX", func(w []uint32) string { return fmt.Sprintf("guc_id=%d registered", w[0]) }, uint32(g.id))
	return abi.SuccessReply(0)
}

// newContext makes a disabled context with the default policies, or says what
// is wrong with it.
func (f *Firmware) newContext(id abi.GUCID, c abi.EngineClass, mask uint32, lrc abi.LRCDescriptor) (*guContext, abi.ErrorCode) {
	if id >= abi.GUCIDMax {
		return nil, f.code(MisuseContextIndex)
	}
	class := f.classOf(c)
	if class == nil || mask == 0 || uint64(mask)>>len(class.instances) != 0 {
		return nil, f.code(MisuseEngine)
	}
	_, err1 := f.cfg.Arena.Bytes(lrc.LRC, abi.LRCSize)
	regs, err2 := f.cfg.Arena.Words(lrc.LRC+abi.RegisterOffset, registerWords)
	if err1 != nil || err2 != nil || lrc.LRC < hw.MemoryBase {
		return nil, f.code(MisuseAddress)
	}
	return &guContext{
		id: id, class: class, mask: mask, lrc: lrc, regs: regs,
		policies: policies{level: DefaultPriority, quantumUS: DefaultQuantumUS, preemptionUS: DefaultPreemptionUS},
	}, 0
}

// known returns the context of an id, or the refusal.
func (f *Firmware) known(id abi.GUCID) (*guContext, *abi.Packet) {
	g := f.contexts[id]
	misuse := MisuseNotRegistered
	switch {
	case id >= abi.GUCIDMax:
		misuse = MisuseContextIndex
	case g != nil && g.state == contextDeregistering:
		misuse = MisuseDeregistering
	case g != nil:
		return g, nil
	}
	p := f.refusal(misuse)
	return nil, &p
}

// updatePolicies changes all named policies or none. They hold from the next
// switch-in; a preemption timeout also restarts the one that is running.
func (f *Firmware) updatePolicies(m abi.UpdateContextPolicies) abi.Packet {
	g, refusal := f.known(m.ID)
	if refusal != nil {
		return *refusal
	}
	p, rearm := g.policies, false
	for _, k := range m.Policies {
		if k.Key < abi.KLVExecutionQuantum || k.Key > abi.KLVFrequency {
			return f.refusal(MisusePolicyKey)
		}
		if len(k.Value) != 1 {
			return f.refusal(MisusePolicyLength)
		}
		v := k.Value[0]
		switch k.Key {
		case abi.KLVExecutionQuantum:
			p.quantumUS = min(v, abi.PolicyMaxUS)
		case abi.KLVPreemptionTimeout:
			p.preemptionUS, rearm = min(v, abi.PolicyMaxUS), true
		case abi.KLVPriority:
			if v >= levels {
				return f.refusal(MisusePolicyValue)
			}
			p.level = v
		case abi.KLVPreemptToIdle:
			if v > 1 {
				return f.refusal(MisusePolicyValue)
			}
			p.toIdle = v == 1
		case abi.KLVFrequency:
			p.frequency = v
		}
	}
	moved := g.policies.level != p.level
	g.policies = p
	if g.queued && moved {
		g.class.remove(g)
		f.queue(g, false)
	}
	if rearm && !f.cfg.KeepPreemption && g.on != nil && g.on.preempting {
		f.armPreemption(g.on)
	}
	return abi.SuccessReply(0)
}

// modeSet enables or disables a context. Each accepted one is answered by one
// MODE_DONE, a disable only when the context is off its engine.
func (f *Firmware) modeSet(m abi.SchedContextModeSet) abi.Packet {
	g, refusal := f.known(m.ID)
	if refusal != nil {
		return *refusal
	}
	if m.Enable {
		if g.state == contextDisabling {
			return f.refusal(MisuseOpposite)
		}
		f.counters.ModeSets++
		f.setState(g, contextEnabled)
		f.modeDone(g, true)
		f.submit(g)
		return abi.SuccessReply(0)
	}
	f.counters.ModeSets++
	g.disables++
	if g.queued {
		g.class.remove(g)
	}
	if g.on == nil {
		f.disabled(g)
		return abi.SuccessReply(0)
	}
	f.setState(g, contextDisabling)
	f.preempt(g.on)
	return abi.SuccessReply(0)
}

// disabled ends a disable: the context is off every engine.
func (f *Firmware) disabled(g *guContext) {
	f.setState(g, contextDisabled)
	for ; g.disables > 0; g.disables-- {
		f.modeDone(g, false)
	}
}

// modeDone answers one MODE_SET.
func (f *Firmware) modeDone(g *guContext, enabled bool) {
	f.counters.ModeDones++
	f.event(abi.SchedContextModeDone{ID: g.id, Enabled: enabled})
}

// schedContext takes note of new work.
func (f *Firmware) schedContext(m abi.SchedContext) abi.Packet {
	g, refusal := f.known(m.ID)
	if refusal != nil {
		return *refusal
	}
	if g.state != contextEnabled {
		f.counters.Dropped++
		return abi.SuccessReply(0)
	}
	f.submit(g)
	return abi.SuccessReply(0)
}

// submit samples the tail of an enabled context and queues it if there is work.
func (f *Firmware) submit(g *guContext) {
	switch {
	case g.on != nil:
		g.on.tail = g.regs.Load(abi.RegRingTail)
	case !g.queued && g.pending():
		f.queue(g, false)
	}
}

// deregister forgets a context that is not enabled, after a delay.
func (f *Firmware) deregister(m abi.DeregisterContext) abi.Packet {
	g, refusal := f.known(m.ID)
	if refusal != nil {
		return *refusal
	}
	if g.state != contextDisabled && g.state != contextReset {
		return f.refusal(MisuseStillEnabled)
	}
	f.setState(g, contextDeregistering)
	f.done(func() {
		delete(f.contexts, g.id)
		f.note("CTX", func(w []uint32) string { return fmt.Sprintf("guc_id=%d forgotten", w[0]) }, uint32(g.id))
		if g.space != 0 {
			f.cfg.Engine.Forget(g.space)
		}
		f.event(abi.DeregisterContextDone{ID: g.id})
	})
	return abi.SuccessReply(0)
}

// done calls do after the configured delay, in order.
func (f *Firmware) done(do func()) {
	if f.cfg.DoneDelay == 0 {
		do()
		return
	}
	f.dones++
	f.after(f.cfg.DoneDelay, func() {
		f.dones--
		do()
	})
}

// globalPolicies takes the one global policy there is. It has no effect: it
// divides time between render and compute engines, and render is not modelled.
func (f *Firmware) globalPolicies(m abi.UpdateSchedulingPolicies) abi.Packet {
	for _, k := range m.Policies {
		switch {
		case k.Key != abi.KLVRenderComputeYield:
			return f.refusal(MisusePolicyKey)
		case len(k.Value) != 2:
			return f.refusal(MisusePolicyLength)
		case k.Value[1] > 100:
			return f.refusal(MisusePolicyValue)
		}
	}
	return abi.SuccessReply(uint32(len(m.Policies)))
}

// policyBlock reads the block of global policies from memory.
func (f *Firmware) policyBlock(m abi.GlobalSchedPolicyChange) abi.Packet {
	block, err := f.cfg.Arena.Words(uint64(m.Block), abi.PolicyBlockDwords)
	if err != nil || uint64(m.Block) < hw.MemoryBase {
		return f.refusal(MisuseAddress)
	}
	if block.Load(abi.PolicyBlockValid) != 1 {
		return f.refusal(MisusePolicyBlock)
	}
	f.noEngineReset = block.Load(abi.PolicyBlockFlags)&abi.PolicyFlagDisableReset != 0
	return abi.SuccessReply(0)
}

// optIn switches on the features of a list in memory, all or none.
func (f *Firmware) optIn(m abi.OptInFeature) abi.Packet {
	if m.Dwords > abi.DwordsMax {
		return f.refusal(MisuseListSize)
	}
	words, err := f.cfg.Arena.Words(m.Address, m.Dwords)
	if err != nil || m.Address < hw.MemoryBase {
		return f.refusal(MisuseAddress)
	}
	dw := make([]uint32, m.Dwords)
	for i := range dw {
		dw[i] = words.Load(uint32(i))
	}
	list, err := abi.ParseKLVs(dw)
	if err != nil {
		return failure(codeOf(err))
	}
	for _, k := range list {
		switch {
		case len(k.Value) != 0:
			return f.refusal(MisusePolicyLength)
		case k.Key == abi.KLVDynamicICS:
			return f.refusal(MisuseNotSupported)
		case k.Key != abi.KLVExtendedCATType:
			return f.refusal(MisusePolicyKey)
		}
	}
	f.extendedCat = f.extendedCat || len(list) > 0
	return abi.SuccessReply(uint32(len(list)))
}

// invalidate acknowledges a TLB invalidation. There is nothing to drop: address
// space tables are read anew at each dispatch.
func (f *Firmware) invalidate(seqno uint32) abi.Packet {
	if seqno == 0 || seqno > seqnoMax {
		return f.refusal(MisuseSeqno)
	}
	f.done(func() { f.event(abi.TLBInvalidationDone{Seqno: seqno}) })
	return abi.SuccessReply(0)
}
