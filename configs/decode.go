package configs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	// fileMax bounds the bytes of a deployment or configuration file.
	fileMax = 16 << 20
	// aliasedMax bounds how many values aliases may expand to.
	aliasedMax = 100_000
)

// value is a node that passed the first stage.
type value struct {
	node *yaml.Node
	// text is set for names, text and words; number for whole numbers, sizes
	// (bytes), durations (nanoseconds) and arguments (bits).
	text   string
	number uint64
	// keys and order are set for maps, items for lists.
	keys  map[string]*value
	order []string
	items []*value
	// bad says that a problem was noted; nothing else may be looked at.
	bad bool
}

// get returns the value of a key, nil when it is absent or bad.
func (v *value) get(key string) *value {
	if v == nil || v.bad {
		return nil
	}
	if got := v.keys[key]; got != nil && !got.bad {
		return got
	}
	return nil
}

// has reports whether the key stands in the file, good or bad.
func (v *value) has(key string) bool { return v != nil && v.keys[key] != nil }

// at returns the node of a key for a problem about it, that of the map when it is absent.
func (v *value) at(key string) *yaml.Node {
	if got := v.keys[key]; got != nil {
		return got.node
	}
	return v.node
}

// list returns the good items of a list key.
func (v *value) list(key string) []*value {
	got := v.get(key)
	if got == nil {
		return nil
	}
	good := make([]*value, 0, len(got.items))
	for _, item := range got.items {
		if !item.bad {
			good = append(good, item)
		}
	}
	return good
}

// readFile returns the bytes of a file of bounded length.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, fileMax+1))
	if err != nil {
		return nil, err
	}
	if len(b) > fileMax {
		return nil, fmt.Errorf("%s: longer than %s", path, formatSize(fileMax))
	}
	return b, nil
}

// decoder is the first stage.
type decoder struct {
	*problems
	// below counts the aliases above the present node, aliased the values below aliases.
	below, aliased int
	// overflow is where aliases were found to expand to too much.
	overflow *yaml.Node
}

// decodeFile compares the one YAML document of b with the shape. The result is
// nil when there is no document to speak of.
func decodeFile(b []byte, s *shape, p *problems) *value {
	in := yaml.NewDecoder(bytes.NewReader(b))
	var doc yaml.Node
	if err := in.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			p.add(nil, "", "the file is empty")
		} else {
			p.syntax(b, err)
		}
		return nil
	}
	if len(doc.Content) != 1 {
		p.add(nil, "", "the file is empty")
		return nil
	}
	var second yaml.Node
	if err := in.Decode(&second); err == nil {
		p.add(&second, "", "the file has more than one document")
	} else if !errors.Is(err, io.EOF) {
		p.syntax(b, err)
		return nil
	}
	d := &decoder{problems: p}
	v := d.decode(doc.Content[0], s, s.noun)
	if d.overflow != nil {
		// What else was found is about what aliases made, not about what was written.
		p.found, p.more = nil, 0
		p.add(d.overflow, "", "aliases expand to more than %d values", aliasedMax)
		return nil
	}
	if v.bad {
		return nil
	}
	return v
}

var syntaxLine = regexp.MustCompile(`^line ([0-9]+): `)

// parserMessage matches the messages for which the library counts lines from 0:
// its parser's, as opposed to its scanner's.
var parserMessage = regexp.MustCompile(`^did not find expected (<|node content|'-' indicator|key|',' or )`)

// syntax notes a syntax error. The library tells a line but no column, so the
// first character of that line stands for it.
func (p *problems) syntax(b []byte, err error) {
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	at := Position{1, 1}
	if m := syntaxLine.FindStringSubmatch(message); m != nil {
		message = message[len(m[0]):]
		at.Line, _ = strconv.Atoi(m[1])
		if parserMessage.MatchString(message) {
			at.Line++
		}
	}
	lines := bytes.Split(b, []byte("\n"))
	at.Line = max(1, min(at.Line, len(lines)))
	line := lines[at.Line-1]
	at.Column = len(line) - len(bytes.TrimLeft(line, " \t")) + 1
	p.addAt(at, "", "not valid YAML: %s", message)
}

// decode returns the value of a node; it is bad when it does not fit.
func (d *decoder) decode(n *yaml.Node, s *shape, what string) *value {
	bad := &value{node: n, bad: true}
	for n.Kind == yaml.AliasNode && n.Alias != nil {
		n = n.Alias
		d.below++
		defer func() { d.below-- }()
	}
	if d.below > 0 {
		if d.aliased++; d.aliased > aliasedMax {
			d.overflow = n
			return bad
		}
	}
	if s.kind == kindChoice {
		for _, c := range s.choices {
			if c.takes(n.Kind) {
				return d.decode(n, c, what)
			}
		}
	}
	if s.kind == kindChoice || !s.takes(n.Kind) || n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		d.add(n, "", "%s: must be %s, this is %s", what, s.wants(), describe(n))
		return bad
	}
	v := &value{node: n}
	ok := true
	switch s.kind {
	case kindMap, kindDict, kindSingle:
		ok = d.decodeMap(n, s, what, v)
	case kindList:
		ok = d.decodeList(n, s, what, v)
	default:
		ok = d.decodeScalar(n, s, what, v)
	}
	v.bad = !ok
	return v
}

// takes reports whether the shape can stand in a node of that kind.
func (s *shape) takes(k yaml.Kind) bool {
	switch s.kind {
	case kindMap, kindDict, kindSingle:
		return k == yaml.MappingNode
	case kindList:
		return k == yaml.SequenceNode
	case kindChoice:
		return true
	}
	return k == yaml.ScalarNode
}

// describe says what a node holds.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return "a number"
	case "!!bool":
		return "true or false"
	case "!!null":
		return "empty"
	case "!!timestamp":
		return "a date"
	case "!!str":
		return "text"
	}
	return "tagged " + n.ShortTag()
}

func (d *decoder) decodeList(n *yaml.Node, s *shape, what string, v *value) bool {
	if count := uint64(len(n.Content)); count < s.min || count > s.max {
		switch {
		case s.min == s.max:
			d.add(n, "", "%s: must have %d elements, this has %d", what, s.min, count)
		case count < s.min:
			d.add(n, "", "%s: must not be empty", what)
		default:
			d.add(n, "", "%s: has more than %d elements", what, s.max)
		}
		return false
	}
	whole := s.min == s.max && s.min > 0
	for i, c := range n.Content {
		item := d.decode(c, s.elem, elementName(what, i, s))
		if item.bad && whole {
			v.bad = true
		}
		v.items = append(v.items, item)
	}
	return !v.bad
}

// elementName is what messages call an element: the noun of a map, or the place.
func elementName(what string, i int, s *shape) string {
	if s.elem.noun != "" {
		return s.elem.noun
	}
	return fmt.Sprintf("%s[%d]", what, i)
}

func (d *decoder) decodeMap(n *yaml.Node, s *shape, what string, v *value) bool {
	v.keys = make(map[string]*value, len(n.Content)/2)
	if s.kind == kindSingle && len(n.Content) != 2 {
		d.add(n, singleHint(s), "%s: must be a map with one key, this has %d", what, len(n.Content)/2)
		return false
	}
	complete := true
	for i := 0; i+1 < len(n.Content); i += 2 {
		kn, vn := n.Content[i], n.Content[i+1]
		if kn.Kind != yaml.ScalarNode || kn.ShortTag() == "!!merge" {
			d.add(kn, "", "%s: keys must be plain words; merging with << is not supported", what)
			complete = complete && s.kind == kindMap
			continue
		}
		k := kn.Value
		if _, double := v.keys[k]; double {
			d.add(kn, "", "key %q stands twice in %s", shorten(k), what)
			continue
		}
		elem := s.elem
		if elem == nil {
			known, ok := s.key(k)
			if !ok {
				d.add(kn, d.didYouMean(k, s.keyNames()), "unknown key %q in %s", shorten(k), what)
				complete = complete && s.kind != kindSingle
				continue
			}
			elem = known.shape
		}
		v.keys[k] = d.decode(vn, elem, k)
		v.order = append(v.order, k)
	}
	for _, k := range s.keys {
		if k.required && s.kind == kindMap && v.keys[k.name] == nil {
			d.add(n, "", "%s: key %q is missing", what, k.name)
		}
	}
	return complete
}

func singleHint(s *shape) string {
	if len(s.keys) > 0 {
		return "write for instance {" + s.keys[0].name + ": …}; keys are " + strings.Join(s.keyNames(), ", ")
	}
	return "write {name: kind}"
}
