package abi

import "fmt"

// Section is one part of a firmware image: memory that the host makes, fills
// and maps for the MCU before it starts it.
type Section struct {
	Name string
	// Start and End are addresses of the MCU, multiples of SectionAlign.
	Start, End uint64
	Flags      SectionFlags
	// Content is what the section begins with; the rest reads as zero.
	Content []byte
}

// SectionFlags say how a section is mapped.
//
//	0  read     1  write     2  execute     4:3  cache mode
//	5  protected             30  shared with the host
//	31 filled with zeroes
type SectionFlags uint32

// The flags.
const (
	SectionRead     SectionFlags = 1 << 0
	SectionWrite    SectionFlags = 1 << 1
	SectionExecute  SectionFlags = 1 << 2
	SectionShared   SectionFlags = 1 << 30
	SectionZeroFill SectionFlags = 1 << 31

	sectionFlagsKnown = SectionRead | SectionWrite | SectionExecute | 3<<3 | SectionShared | SectionZeroFill
)

// The container of a firmware image (panthor's loader): a header of magic,
// minor 7:0 and major 15:8 of its version, a version hash, a reserved word and
// its own length, then entries of a header {type 7:0, size 15:8, update 30, optional 31} with
// what follows. A memory section says flags, addresses, where its content lies
// in the image, and its name, padded with NUL.
const (
	imageMagic      uint32 = 0xC3F13A6E
	imageHeaderSize        = 20
	sectionSize            = 28
	entryTypeMemory        = 0
	entryOptional   uint32 = 1 << 31
	// SectionAlign is the granularity of address space tables, which is ours.
	SectionAlign uint64 = 64 << 10
	// ImageSizeMax bounds an image, SectionsMax its sections.
	ImageSizeMax    = 16 << 20
	SectionsMax     = 32
	sectionNameMax  = 64
	sectionRangeMax = 1 << 32
)

// ImageError says what is wrong with a firmware image.
type ImageError struct{ Reason string }

// Error implements error.
func (e *ImageError) Error() string { return "firmware image: " + e.Reason }

func badImage(format string, args ...any) error { return &ImageError{fmt.Sprintf(format, args...)} }

// check reports what is wrong with a section.
func (s Section) check() error {
	switch {
	case s.Start%SectionAlign != 0 || s.End%SectionAlign != 0 || s.Start >= s.End || s.End > sectionRangeMax:
		return badImage("section %q at %#x to %#x", s.Name, s.Start, s.End)
	case uint64(len(s.Content)) > s.End-s.Start:
		return badImage("section %q has %d bytes of content", s.Name, len(s.Content))
	case s.Flags&^sectionFlagsKnown != 0:
		return badImage("section %q has flags %#x", s.Name, uint32(s.Flags))
	case len(s.Name) > sectionNameMax:
		return badImage("section name %q", s.Name)
	case s.Flags&SectionShared != 0 && s.Start != SharedBase:
		return badImage("shared section at %#x", s.Start)
	}
	for _, c := range []byte(s.Name) {
		if c == 0 || c > '~' || c < ' ' {
			return badImage("section name %q", s.Name)
		}
	}
	return nil
}

// nameSize is the size of the name in the image, in whole words.
func (s Section) nameSize() int { return (len(s.Name) + 3) &^ 3 }

// EncodeImage makes an image. Errors are *ImageError.
func EncodeImage(sections []Section) ([]byte, error) {
	if len(sections) > SectionsMax {
		return nil, badImage("%d sections", len(sections))
	}
	size := imageHeaderSize
	for _, s := range sections {
		if err := s.check(); err != nil {
			return nil, err
		}
		size += 4 + sectionSize + s.nameSize()
	}
	b := make([]byte, size)
	put32(b, imageMagic)
	put32(b[16:], uint32(size))
	at := imageHeaderSize
	for _, s := range sections {
		put32(b[at:], entryTypeMemory|uint32(4+sectionSize+s.nameSize())<<8)
		e := b[at+4:]
		put32(e, uint32(s.Flags))
		put32(e[4:], uint32(s.Start))
		put32(e[8:], uint32(s.End-1))
		put32(e[12:], uint32(len(b)))
		put32(e[16:], uint32(len(b)+len(s.Content)))
		copy(e[sectionSize:], s.Name)
		at += 4 + sectionSize + s.nameSize()
		b = append(b, s.Content...)
	}
	if len(b) > ImageSizeMax {
		return nil, badImage("%d bytes", len(b))
	}
	return b, nil
}

// DecodeImage reads an image; the contents are slices of b. Entries of other
// types are refused unless they are optional. Errors are *ImageError.
func DecodeImage(b []byte) ([]Section, error) {
	if len(b) < imageHeaderSize || len(b) > ImageSizeMax || get32(b) != imageMagic || get32(b[4:])>>8&0xFF != 0 {
		return nil, badImage("header")
	}
	end := uint64(get32(b[16:]))
	if end > uint64(len(b)) {
		return nil, badImage("%d bytes, its header says %d", len(b), end)
	}
	var sections []Section
	for at := uint64(imageHeaderSize); at < end; {
		if end-at < 4 {
			return nil, badImage("cut off at %#x", at)
		}
		head := get32(b[at:])
		size := uint64(head >> 8 & 0xFF)
		if size < 4 || size > end-at {
			return nil, badImage("entry of %d bytes at %#x", size, at)
		}
		entry := b[at+4 : at+size]
		at += size
		if head&0xFF != entryTypeMemory {
			if head&entryOptional == 0 {
				return nil, badImage("entry of type %d", head&0xFF)
			}
			continue
		}
		s, err := decodeSection(b, entry)
		if err != nil {
			return nil, err
		}
		if sections = append(sections, s); len(sections) > SectionsMax {
			return nil, badImage("too many sections")
		}
	}
	return sections, nil
}

func decodeSection(image, entry []byte) (Section, error) {
	if len(entry) < sectionSize {
		return Section{}, badImage("section entry of %d bytes", len(entry))
	}
	from, to := uint64(get32(entry[12:])), uint64(get32(entry[16:]))
	if from > to || to > uint64(len(image)) {
		return Section{}, badImage("content at %#x to %#x", from, to)
	}
	name := entry[sectionSize:]
	for len(name) > 0 && name[len(name)-1] == 0 {
		name = name[:len(name)-1]
	}
	s := Section{
		Name: string(name), Flags: SectionFlags(get32(entry)), Content: image[from:to:to],
		Start: uint64(get32(entry[4:])), End: uint64(get32(entry[8:])) + 1,
	}
	return s, s.check()
}
