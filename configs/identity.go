package configs

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"maps"
	"slices"

	"github.com/gpuwm/gpuwm/core"
)

// identity is the digest that, with the entity's name, names a run: what is
// computed, from what, in which order. Where and how it runs does not count
// (device, priority, checkpoint, save, timeout, on-failure), so that a run can
// go on after these were changed.
func identity(e *Entity) core.Digest {
	h := hasher{sha256.New()}
	h.text("gpuwm identity 2", string(e.Spec.Mode))
	h.number(uint64(len(e.Spec.Buffers)))
	for i, b := range e.Spec.Buffers {
		init := e.Buffers[i]
		h.text(b.Name)
		h.number(b.Size, init.Length)
		if init.Path != "" {
			h.text(init.Digest.String())
		} else {
			h.text("zero")
		}
	}
	h.number(uint64(len(e.Jobs)))
	for _, j := range e.Jobs {
		h.text(j.Spec.Name, j.Spec.Entry)
		h.number(uint64(len(j.Spec.Kernels)))
		for _, format := range slices.Sorted(maps.Keys(j.Spec.Kernels)) {
			h.text(format, j.Spec.Kernels[format].String())
		}
		for i := range 3 {
			h.number(uint64(j.Spec.Grid[i]), uint64(j.Spec.Group[i]))
		}
		h.number(uint64(len(j.Spec.Args)))
		for _, a := range j.Spec.Args {
			h.text(string(a.Kind), a.Buffer)
			h.number(a.Bits)
		}
		h.number(uint64(len(j.After)))
		h.text(j.After...)
	}
	return core.Digest(h.Sum(nil))
}

// run is the digest of the names of all entities of a file, in any order: they
// belong together.
func run(entities []Entity) core.Digest {
	names := make([]string, len(entities))
	for i := range entities {
		names[i] = entities[i].Spec.Name
	}
	slices.Sort(names)
	h := hasher{sha256.New()}
	h.text("gpuwm run 1")
	h.text(names...)
	return core.Digest(h.Sum(nil))
}

// hasher feeds values so that no two different sequences give the same bytes.
type hasher struct{ hash.Hash }

func (h hasher) number(values ...uint64) {
	for _, v := range values {
		h.Write(binary.LittleEndian.AppendUint64(nil, v))
	}
}

func (h hasher) text(values ...string) {
	for _, v := range values {
		h.number(uint64(len(v)))
		h.Write([]byte(v))
	}
}
