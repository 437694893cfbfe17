package api

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
)

//go:embed docs.html.tmpl
var docsTemplate string

//go:embed docs.css
var docsStyle string

// docsPage is openapi.yaml for people: one page without scripts, and without anything from elsewhere.
type docsPage struct {
	html  []byte
	style string // the hash of the style, for the page's Content-Security-Policy
}

// VisitGetDocsResponse implements GetDocsResponseObject.
func (p docsPage) VisitGetDocsResponse(w http.ResponseWriter) error {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'sha256-"+p.style+"'; frame-ancestors 'none'")
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(p.html)
	return err
}

// GetDocs implements StrictServerInterface.
func (s *Server) GetDocs(context.Context, GetDocsRequestObject) (GetDocsResponseObject, error) {
	page, err := s.docs()
	if err != nil {
		return nil, err
	}
	return page, nil
}

// What the template reads.
type (
	docs struct {
		Title   string
		About   []string
		Style   template.CSS
		Tags    []docsTag
		Schemas []docsSchema
	}
	docsTag struct {
		Name, Description string
		Operations        []docsOperation
	}
	docsOperation struct {
		ID, Method, Path, Summary, Role string
		About                           []string
		Parameters                      []docsField
		Body                            *docsType
		Answers                         []docsAnswer
	}
	docsAnswer struct {
		Status, Description string
		Type                docsType
	}
	docsSchema struct {
		Name, Description, Example string
		Values                     []string
		Fields                     []docsField
	}
	docsField struct {
		Name, In, Description string
		Required              bool
		Type                  docsType
	}
	docsType struct {
		Ref, Name string // a schema of the page, or a word
		Many      bool
	}
)

func newDocs() (docsPage, error) {
	doc, err := document()
	if err != nil {
		return docsPage{}, err
	}
	sum := sha256.Sum256([]byte(docsStyle))
	d := docs{Title: doc.Info.Title, About: paragraphs(doc.Info.Description), Style: template.CSS(docsStyle)} //nolint:gosec // it is our own file
	for _, tag := range doc.Tags {
		d.Tags = append(d.Tags, docsTag{Name: tag.Name, Description: tag.Description, Operations: docsOperations(doc, tag.Name)})
	}
	for name, ref := range doc.Components.Schemas {
		d.Schemas = append(d.Schemas, newDocsSchema(name, ref.Value))
	}
	slices.SortFunc(d.Schemas, func(a, b docsSchema) int { return cmp.Compare(a.Name, b.Name) })
	t, err := template.New("docs").Parse(docsTemplate)
	if err != nil {
		return docsPage{}, fmt.Errorf("read the template of /docs: %w", err)
	}
	var html bytes.Buffer
	if err := t.Execute(&html, d); err != nil {
		return docsPage{}, fmt.Errorf("write /docs: %w", err)
	}
	return docsPage{html.Bytes(), base64.StdEncoding.EncodeToString(sum[:])}, nil
}

// paragraphs takes out what marks code and bold text in the document.
func paragraphs(text string) []string {
	text = strings.NewReplacer("`", "", "**", "").Replace(strings.TrimSpace(text))
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n\n")
}

func plainText(text string) string { return strings.Join(paragraphs(text), " ") }

func docsOperations(doc *openapi3.T, tag string) []docsOperation {
	var out []docsOperation
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			if !slices.Contains(op.Tags, tag) {
				continue
			}
			role, _ := op.Extensions["x-role"].(string)
			o := docsOperation{ID: op.OperationID, Method: method, Path: path, Summary: op.Summary, Role: role, About: paragraphs(op.Description)}
			for _, p := range slices.Concat(item.Parameters, op.Parameters) {
				o.Parameters = append(o.Parameters, docsField{
					Name: p.Value.Name, In: p.Value.In, Description: plainText(p.Value.Description), Required: p.Value.Required, Type: typeOf(p.Value.Schema),
				})
			}
			if op.RequestBody != nil {
				o.Body = new(bodyOf(op.RequestBody.Value.Content))
			}
			for status, r := range op.Responses.Map() {
				a := docsAnswer{Status: status, Type: bodyOf(r.Value.Content)}
				if r.Value.Description != nil {
					a.Description = plainText(*r.Value.Description)
				}
				o.Answers = append(o.Answers, a)
			}
			slices.SortFunc(o.Answers, func(a, b docsAnswer) int { return cmp.Compare(a.Status, b.Status) })
			out = append(out, o)
		}
	}
	order := []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}
	slices.SortFunc(out, func(a, b docsOperation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(slices.Index(order, a.Method), slices.Index(order, b.Method)))
	})
	return out
}

func newDocsSchema(name string, s *openapi3.Schema) docsSchema {
	out := docsSchema{Name: name, Description: plainText(s.Description)}
	for _, v := range s.Enum {
		out.Values = append(out.Values, fmt.Sprint(v))
	}
	for field, ref := range s.Properties {
		out.Fields = append(out.Fields, docsField{
			Name: field, Description: plainText(ref.Value.Description), Required: slices.Contains(s.Required, field), Type: typeOf(ref),
		})
	}
	slices.SortFunc(out.Fields, func(a, b docsField) int { return cmp.Compare(a.Name, b.Name) })
	if s.Example != nil {
		if text, err := json.MarshalIndent(s.Example, "", "  "); err == nil {
			out.Example = string(text)
		}
	}
	return out
}

// bodyOf returns the type of a body; all of its media types have the same.
func bodyOf(content openapi3.Content) docsType {
	for _, media := range content {
		return typeOf(media.Schema)
	}
	return docsType{Name: "–"}
}

func typeOf(ref *openapi3.SchemaRef) docsType {
	switch {
	case ref == nil || ref.Value == nil:
		return docsType{Name: "–"}
	case ref.Ref != "":
		return docsType{Ref: strings.TrimPrefix(ref.Ref, "#/components/schemas/")}
	case ref.Value.Items != nil:
		t := typeOf(ref.Value.Items)
		t.Many = true
		return t
	case ref.Value.AdditionalProperties.Schema != nil:
		t := typeOf(ref.Value.AdditionalProperties.Schema)
		t.Many = true
		return t
	case ref.Value.Type != nil:
		return docsType{Name: strings.Join(ref.Value.Type.Slice(), " or ")}
	default:
		return docsType{Name: "anything"}
	}
}
