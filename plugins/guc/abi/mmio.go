package abi

// The MMIO mailbox of the main GT: byte offsets in the register space. The host writes
// up to MMIODwords into the scratch registers, writes 0 to the notify
// register, and polls scratch 0 until its ORIGIN bit says GuC.
const (
	// RegWindow is the page of the register space that holds both.
	RegWindow  uint32 = 0x190000
	RegScratch uint32 = 0x190240
	RegNotify  uint32 = 0x1901F0
	MMIODwords        = 4
)

// AppendMMIO encodes a packet for the mailbox, filled up with zeroes. Packets
// that are longer than MMIODwords are refused.
func AppendMMIO(p Packet) ([MMIODwords]uint32, error) {
	var box [MMIODwords]uint32
	dw := p.Dwords()
	if len(dw) > MMIODwords {
		return box, wire(ErrorTooLarge, "mmio message of %d dwords", len(dw))
	}
	copy(box[:], dw)
	return box, nil
}

// ParseMMIO decodes what stands in the mailbox. A request is cut to the length
// of its action first, because the box does not say how long its message is;
// a success keeps all three dwords.
func ParseMMIO(box [MMIODwords]uint32) (Packet, error) {
	h, err := DecodeHeader(box[0])
	if err != nil {
		return Packet{Origin: h.Origin, Type: h.Type}, err
	}
	length := MMIODwords
	switch h.Type {
	case TypeFailure, TypeRetry, TypeBusy:
		length = 1
	case TypeRequest, TypeEvent, TypeFastRequest:
		if bounds, typed := lengths[h.Action()]; typed && bounds[0] == bounds[1] {
			length = min(bounds[0]+1, MMIODwords)
		}
	}
	return Parse(box[:length])
}
