package fw

import (
	"encoding/binary"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

// Sections of the firmware's image besides the shared one. The code is a magic
// number and the build; the data says how the firmware was left.
const (
	codeStart = abi.SectionAlign
	dataStart = 2 * abi.SectionAlign

	codeMagic uint64 = 0x4D41_4C49_4353_4631 // "MALICSF1"
	codeSize  uint64 = 16
)

// What the firmware's data section says. The
// host's image has 0, cold.
const (
	// memoryRunning: it was not halted; a fast restart fails.
	memoryRunning uint64 = 1
	// memoryHalted: a fast restart goes on with what is in memory.
	memoryHalted uint64 = 2
)

// layout is where the blocks lie in the shared section.
type layout struct {
	groups, streams int
	groupStride     uint64
	size            uint64
}

// pagesOffset is where the input and output pages begin, behind all control blocks.
const pagesOffset uint64 = 0x8000

func layoutOf(id Identity) layout {
	l := layout{groups: id.Groups, streams: id.Streams}
	const strideAlign = 0x100
	l.groupStride = align(abi.StreamControlOffset+uint64(id.Streams)*abi.StreamControlSize, strideAlign)
	l.size = align(pagesOffset+hw.PageSize*uint64(2+id.Groups*l.groupPages()), abi.SectionAlign)
	return l
}

func align(v, to uint64) uint64 { return (v + to - 1) / to * to }

// groupPages is the number of input and output pages of a group and its streams.
func (l layout) groupPages() int { return 2 + 2*l.streams }

// The offsets of blocks in the shared section; an output page follows its input page.
func (l layout) globalInput() uint64 { return pagesOffset }

func (l layout) groupControl(slot int) uint64 {
	return abi.GroupControlOffset + uint64(slot)*l.groupStride
}

func (l layout) groupInput(slot int) uint64 {
	return pagesOffset + hw.PageSize*uint64(2+slot*l.groupPages())
}

func (l layout) streamControl(slot, stream int) uint64 {
	return l.groupControl(slot) + abi.StreamControlOffset + uint64(stream)*abi.StreamControlSize
}

func (l layout) streamInput(slot, stream int) uint64 {
	return l.groupInput(slot) + hw.PageSize*uint64(2+2*stream)
}

// Image makes the firmware image of a device: what its host loads into memory,
// maps for the MCU, and starts. Errors wrap ErrInvalid.
func Image(id Identity) ([]byte, error) {
	id, err := id.complete()
	if err != nil {
		return nil, err
	}
	code := binary.LittleEndian.AppendUint64(nil, codeMagic)
	code = binary.LittleEndian.AppendUint64(code, id.Build)
	return abi.EncodeImage([]abi.Section{
		{Name: "code", Start: codeStart, End: codeStart + abi.SectionAlign, Flags: abi.SectionRead | abi.SectionExecute, Content: code},
		{Name: "data", Start: dataStart, End: dataStart + abi.SectionAlign,
			Flags: abi.SectionRead | abi.SectionWrite | abi.SectionZeroFill},
		{Name: "shared", Start: abi.SharedBase, End: abi.SharedBase + layoutOf(id).size,
			Flags: abi.SectionRead | abi.SectionWrite | abi.SectionShared | abi.SectionZeroFill},
	})
}
