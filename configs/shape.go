package configs

import (
	"math"
	"strconv"
	"strings"

	"github.com/gpuwm/gpuwm/core"
)

// kind is what a place in a file may hold.
type kind uint8

const (
	_ kind = iota
	// kindMap has the keys of its table and no others.
	kindMap
	// kindDict has free keys, all with the same shape of value.
	kindDict
	// kindSingle is a map with exactly one key: one of its table, or a free one when elem is set.
	kindSingle
	// kindList has elements of one shape; min and max count them.
	kindList
	// kindName is a name by the rule of namePattern.
	kindName
	// kindText is any text but the empty one.
	kindText
	// kindWord is one of a fixed set of words.
	kindWord
	// kindInt is a whole number from min to max.
	kindInt
	// kindDuration is a duration with units, min to max in nanoseconds.
	kindDuration
	// kindSize is a size with a unit, min to max in bytes.
	kindSize
	// kindNumber is an argument's value, by its arg kind.
	kindNumber
	// kindChoice takes the first of its choices that fits the YAML kind of the node.
	kindChoice
)

// namePattern is the rule for names of devices, entities, jobs and buffers.
const namePattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`

// nameRule is namePattern in words.
const nameRule = "a name has 1 to 63 letters, digits, '.', '_' or '-', and starts with a letter or digit"

// shape describes one place in a file.
type shape struct {
	kind kind
	// noun is what messages call a map: "entity", "job".
	noun     string
	keys     []key
	elem     *shape
	words    []string
	min, max uint64
	arg      core.ArgKind
	choices  []*shape
}

// key is one key of a map. The same table gives the decoder what it knows, the
// schema its documentation, and both the default.
type key struct {
	name     string
	doc      string
	required bool
	// fallback is the default as one would write it; empty when there is none.
	fallback string
	shape    *shape
}

// The shapes that need no table.
var (
	name = &shape{kind: kindName}
	text = &shape{kind: kindText}
)

func word(words ...string) *shape      { return &shape{kind: kindWord, words: words} }
func integer(low, high uint64) *shape  { return &shape{kind: kindInt, min: low, max: high} }
func duration(low, high uint64) *shape { return &shape{kind: kindDuration, min: low, max: high} }
func number(arg core.ArgKind) *shape   { return &shape{kind: kindNumber, arg: arg} }
func list(elem *shape, low uint64) *shape {
	return &shape{kind: kindList, elem: elem, min: low, max: listMax}
}
func choice(choices ...*shape) *shape      { return &shape{kind: kindChoice, choices: choices} }
func dict(noun string, elem *shape) *shape { return &shape{kind: kindDict, noun: noun, elem: elem} }

func mapping(noun string, keys ...key) *shape {
	return &shape{kind: kindMap, noun: noun, keys: keys}
}

func single(noun string, keys ...key) *shape {
	return &shape{kind: kindSingle, noun: noun, keys: keys}
}

// triple is a list of exactly three whole numbers from 1 to 2^32-1.
func triple() *shape {
	return &shape{kind: kindList, elem: integer(1, math.MaxUint32), min: 3, max: 3}
}

// listMax bounds every list of a file.
const listMax = 1 << 20

// keyNames lists the keys of a map or single shape.
func (s *shape) keyNames() []string {
	names := make([]string, len(s.keys))
	for i, k := range s.keys {
		names[i] = k.name
	}
	return names
}

// key returns the entry of that name.
func (s *shape) key(name string) (key, bool) {
	for _, k := range s.keys {
		if k.name == name {
			return k, true
		}
	}
	return key{}, false
}

// wants says in words what the shape takes.
func (s *shape) wants() string {
	switch s.kind {
	case kindMap, kindDict:
		return "a map"
	case kindSingle:
		return "a map with one key"
	case kindList:
		return "a list"
	case kindName:
		return "a name"
	case kindText:
		return "text"
	case kindWord:
		if _, err := strconv.ParseFloat(s.words[0], 64); err == nil {
			return "one of " + strings.Join(s.words, ", ")
		}
		return "a word"
	case kindInt:
		return "a whole number"
	case kindDuration:
		return "a duration such as 30s"
	case kindSize:
		return "a size such as 64KiB"
	case kindNumber:
		return "a number"
	case kindChoice:
		out := ""
		for i, c := range s.choices {
			switch {
			case i == 0:
			case i == len(s.choices)-1:
				out += " or "
			default:
				out += ", "
			}
			out += c.wants()
		}
		return out
	}
	panic("configs: shape without a kind")
}
