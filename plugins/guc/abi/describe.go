package abi

import (
	"fmt"
	"strings"
)

// Describe decodes one HXG message into a line for traces. It never fails:
// what can't be decoded is shown as dwords.
func Describe(hxg []uint32) string {
	p, err := Parse(hxg)
	if err != nil {
		return fmt.Sprintf("malformed %08x: %v", head(hxg), err)
	}
	if p.Body.Action() == 0 {
		return fmt.Sprintf("%s %s", p.Type, describeReply(p.Body))
	}
	return strings.TrimRight(fmt.Sprintf("%s %s %s", p.Type, p.Body.Action(), describeParams(p.Body)), " ")
}

// DescribeCTB does the same for a message in a CTB, header dword first. The
// fence is left out when it is 0, as in events of the firmware.
func DescribeCTB(words []uint32) string {
	if len(words) == 0 {
		return "malformed: no header"
	}
	text := Describe(words[1:])
	if h, err := DecodeCTBHeader(words[0]); err != nil || int(h.Dwords) != len(words)-1 {
		text = fmt.Sprintf("malformed header %08x: %s", words[0], text)
	}
	if fence := words[0] >> 16; fence != 0 {
		text = fmt.Sprintf("fence=%#04x %s", fence, text)
	}
	return text
}

// DescribeMMIO does the same for the mailbox.
func DescribeMMIO(box [MMIODwords]uint32) string {
	p, err := ParseMMIO(box)
	if err != nil {
		return fmt.Sprintf("malformed %08x: %v", box, err)
	}
	return Describe(p.Dwords())
}

const describeMax = 16

func head(dw []uint32) []uint32 { return dw[:min(len(dw), describeMax)] }

func describeReply(b Body) string {
	switch r := b.(type) {
	case Success:
		if len(r.More) > 0 {
			return fmt.Sprintf("%#x %08x", r.Data0, head(r.More))
		}
		return fmt.Sprintf("%#x", r.Data0)
	case Failure:
		return fmt.Sprintf("%s hint=%#x", r.Code, r.Hint)
	case Retry:
		return fmt.Sprintf("reason=%#x", r.Reason)
	case Busy:
		return fmt.Sprintf("counter=%d", r.Counter)
	}
	return ""
}

func describeKLVs(list []KLV) string {
	var b strings.Builder
	for _, k := range list {
		b.WriteString(" " + k.String())
	}
	return b.String()
}

func describeParams(b Body) string {
	switch m := b.(type) {
	case RegisterContext:
		return fmt.Sprintf("guc_id=%d class=%d mask=%#x lrc=%#x", m.ID, m.Class, m.SubmitMask, m.LRCDescriptor)
	case UpdateContextPolicies:
		return fmt.Sprintf("guc_id=%d%s", m.ID, describeKLVs(m.Policies))
	case UpdateSchedulingPolicies:
		return strings.TrimLeft(describeKLVs(m.Policies), " ")
	case QuerySingleKLV:
		return fmt.Sprintf("key=%s", m.Key)
	case MatchVersion:
		return fmt.Sprintf("version=%d.%d.%d", m.Version.Branch, m.Version.Major, m.Version.Minor)
	case TLBInvalidationDone:
		return fmt.Sprintf("seqno=%d", m.Seqno)
	case TLBInvalidationAll:
		return fmt.Sprintf("seqno=%d op=%#x", m.Seqno, m.Op)
	case TLBInvalidation:
		return fmt.Sprintf("seqno=%d op=%#x asid=%d address=%#x order=%d", m.Seqno, m.Op, m.ASID, m.Address, m.Order)
	case GlobalSchedPolicyChange:
		return fmt.Sprintf("block=%#x", m.Block)
	case OptInFeature:
		return fmt.Sprintf("address=%#x dwords=%d", m.Address, m.Dwords)
	case StateCapture:
		return fmt.Sprintf("status=%d", m.Status)
	case SchedContextModeSet:
		return fmt.Sprintf("guc_id=%d enable=%t", m.ID, m.Enable)
	case SchedContextModeDone:
		return fmt.Sprintf("guc_id=%d enabled=%t", m.ID, m.Enabled)
	case SchedContext:
		return fmt.Sprintf("guc_id=%d", m.ID)
	case DeregisterContext:
		return fmt.Sprintf("guc_id=%d", m.ID)
	case DeregisterContextDone:
		return fmt.Sprintf("guc_id=%d", m.ID)
	case ContextReset:
		return fmt.Sprintf("guc_id=%d", m.ID)
	case EngineFailure:
		return fmt.Sprintf("class=%d instance=%d reason=%#x", m.Class, m.Instance, m.Reason)
	case CatError:
		if m.Extended {
			return fmt.Sprintf("guc_id=%#x type=%#x", uint32(m.ID), m.Type)
		}
		return fmt.Sprintf("guc_id=%#x", uint32(m.ID))
	case SelfCfg:
		return fmt.Sprintf("key=%s value=%#x", m.Key, m.Value)
	case ControlCTB:
		return fmt.Sprintf("enable=%t", m.Enable)
	}
	if text := describeMigrate(b); text != "" {
		return text
	}
	if dw := b.payload(nil); len(dw) > 0 {
		return fmt.Sprintf("%08x", head(dw))
	}
	return ""
}
