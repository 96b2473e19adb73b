package configs

import (
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// pixelBytes is what one pixel of rgba8 takes.
const pixelBytes = 4

// saveNeeds says which keys belong to which format.
var saveNeeds = map[core.SaveFormat][]string{
	core.SaveRaw:  nil,
	core.SaveText: nil,
	core.SaveCSV:  {"columns"},
	core.SavePNG:  {"width", "height", "pixel"},
	core.SavePPM:  {"width", "height", "pixel"},
}

// save builds the result file of a buffer; size 0 means that it is not known.
func (b *builder) save(buffer string, size uint64, v *value) (core.SaveSpec, bool) {
	s := core.SaveSpec{Buffer: buffer, Format: core.SaveRaw}
	if v.keys == nil {
		path, ok := b.files.output(v)
		s.Path = path
		return s, ok
	}
	s.Format = core.SaveFormat(v.word("format", fallback(saveShape, "format")))
	s.AtCheckpoint = v.get("at") != nil
	if v.has("format") && v.get("format") == nil {
		return s, false
	}
	ok := b.saveKeys(&s, v)
	path := v.get("path")
	if path == nil {
		return s, false
	}
	absolute, placed := b.files.output(path)
	s.Path = absolute
	if !ok || !placed || size == 0 {
		return s, false
	}
	return s, b.saveFits(&s, size, v)
}

// saveKeys reads the keys that belong to the format and refuses the others.
func (b *builder) saveKeys(s *core.SaveSpec, v *value) bool {
	ok := true
	needs := saveNeeds[s.Format]
	for _, k := range []string{"columns", "width", "height", "pixel"} {
		needed := slices.Contains(needs, k)
		switch {
		case needed && !v.has(k):
			b.add(v.node, "", "save: format %s needs the key %q", s.Format, k)
			ok = false
		case !needed && v.has(k):
			b.add(v.at(k), "", "save: key %q does not belong to format %s", k, s.Format)
			ok = false
		case needed && v.get(k) == nil:
			ok = false
		}
	}
	if !ok {
		return false
	}
	if s.Format == core.SavePNG || s.Format == core.SavePPM {
		s.Width, s.Height = uint32(v.get("width").number), uint32(v.get("height").number)
		s.Pixel = v.get("pixel").text
	}
	seen := map[string]bool{}
	for _, c := range v.list("columns") {
		kind := c.get(c.order[0])
		if kind == nil {
			ok = false
			continue
		}
		if seen[c.order[0]] {
			b.add(c.node, "", "save: column %q stands twice", shorten(c.order[0]))
			ok = false
		}
		seen[c.order[0]] = true
		s.Columns = append(s.Columns, core.Column{Name: c.order[0], Kind: core.ArgKind(kind.text)})
	}
	return ok && len(s.Columns) == len(v.listAll("columns"))
}

// saveFits compares the format with the size of the buffer.
func (b *builder) saveFits(s *core.SaveSpec, size uint64, v *value) bool {
	switch s.Format {
	case core.SavePNG, core.SavePPM:
		if want := uint64(s.Width) * uint64(s.Height) * pixelBytes; want != size {
			b.add(v.node, "make the size "+formatSize(want), "save: %d x %d pixels of %s take %s, the buffer has %s",
				s.Width, s.Height, s.Pixel, formatSize(want), formatSize(size))
			return false
		}
	case core.SaveCSV:
		row := uint64(0)
		for _, c := range s.Columns {
			row += uint64(c.Kind.Size())
		}
		if row > size {
			b.add(v.node, "", "save: a row takes %d bytes, the buffer has %s", row, formatSize(size))
			return false
		}
	}
	return true
}
