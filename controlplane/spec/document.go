package spec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// ParseDocument reads a Document from YAML or JSON. A key that is unknown or there twice, or a value of another type, is
// an error that names its line and field. The objects are not validated: see Validate.
func ParseDocument(data []byte) (Document, error) {
	var d Document
	if len(bytes.TrimSpace(data)) == 0 {
		return d, errors.New("the document is empty")
	}
	if !utf8.Valid(data) {
		return d, errors.New("the document is not text in UTF-8")
	}
	// The JSON decoder takes JSON that is indented with tabs, which YAML refuses, and gives better messages.
	if bytes.TrimSpace(data)[0] == '{' {
		if err := checkStrict(data, reflect.TypeFor[Document](), true); err != nil {
			line := 1 + bytes.Count(data[:min(int(err.offset), len(data))], []byte("\n"))
			return d, fmt.Errorf("line %d: %w", line, err.FieldError)
		}
		err := json.Unmarshal(data, &d)
		return d, err
	}
	file, err := parser.ParseBytes(data, 0)
	if err != nil {
		return d, yamlError(err)
	}
	docs := slices.DeleteFunc(file.Docs, func(n *ast.DocumentNode) bool { return n.Body == nil })
	switch {
	case len(docs) == 0:
		return d, errors.New("the document is empty")
	case len(docs) > 1:
		return d, fmt.Errorf("line %d: a second document starts here: put all objects into one", docs[1].Body.GetToken().Position.Line)
	}
	// Not yaml.YAMLToJSON: it quotes as Go does, which is not JSON for every character.
	var tree any
	if err := yaml.NodeToValue(docs[0].Body, &tree); err != nil {
		return d, yamlError(err)
	}
	text, err := json.Marshal(tree)
	if err != nil {
		return d, fmt.Errorf("has a value that cannot be one of any field: %w", err)
	}
	if err := checkStrict(text, reflect.TypeFor[Document](), true); err != nil {
		return d, fmt.Errorf("line %d: %w", lineOf(docs[0].Body, err.Field), err.FieldError)
	}
	err = json.Unmarshal(text, &d)
	return d, err
}

// yamlError leaves the excerpt of the text out, which may hold a private key.
func yamlError(err error) error {
	if e, ok := errors.AsType[yaml.Error](err); ok && e.GetToken() != nil {
		return fmt.Errorf("line %d: %s", e.GetToken().Position.Line, e.GetMessage())
	}
	return errors.New("is not YAML")
}

// lineOf returns the line of what the JSON pointer names, or of what is nearest above it.
func lineOf(node ast.Node, pointer string) int {
	line := node.GetToken().Position.Line
	if values := members(node); len(values) > 0 {
		line = values[0].Key.GetToken().Position.Line
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		node, line = child(node, part, line)
		if node == nil {
			break
		}
	}
	return line
}

func members(node ast.Node) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	case *ast.AnchorNode:
		return members(n.Value)
	case *ast.TagNode:
		return members(n.Value)
	default:
		return nil
	}
}

func child(node ast.Node, key string, line int) (ast.Node, int) {
	if seq, ok := node.(*ast.SequenceNode); ok {
		if i, err := strconv.Atoi(key); err == nil && i < len(seq.Values) {
			return seq.Values[i], seq.Values[i].GetToken().Position.Line
		}
		return nil, line
	}
	for _, m := range members(node) {
		token := m.Key.GetToken()
		if token.Value == key {
			return m.Value, token.Position.Line
		}
	}
	return nil, line
}

// ValidateObjects returns what is wrong with the names and the objects of d, each by itself.
func (d Document) ValidateObjects() []FieldError {
	c := newChecker()
	checkAll(c.in("certificates"), d.Certificates, CheckName)
	checkAll(c.in("overrides"), d.Overrides, CheckNode)
	checkAll(c.in("sites"), d.Sites, CheckName)
	checkAll(c.in("upstreams"), d.Upstreams, CheckName)
	return *c.errs
}

// Validate returns what is wrong with d when it is all there is: with its objects, with their references to each other,
// and between sites that share a listener.
func (d Document) Validate() []FieldError {
	c := newChecker()
	c.merge(d.ValidateObjects())
	var sockets Sockets
	for _, name := range slices.Sorted(maps.Keys(d.Sites)) {
		c := c.in("sites", name)
		for _, ref := range d.Sites[name].References() {
			var ok bool
			if ref.Certificate {
				_, ok = d.Certificates[ref.Name]
			} else {
				_, ok = d.Upstreams[ref.Name]
			}
			if !ok {
				c.merge([]FieldError{ref.Missing()})
			}
		}
		c.merge(sockets.Add(name, d.Sites[name]))
	}
	return *c.errs
}

func checkAll[T interface{ Validate() []FieldError }](c checker, objects map[string]T, checkName func(string) []FieldError) {
	for _, name := range slices.Sorted(maps.Keys(objects)) {
		c := c.in(name)
		c.merge(checkName(name))
		c.merge(objects[name].Validate())
	}
}
