package api

import (
	"cmp"
	"iter"
	"slices"
	"strings"
)

const (
	// maxPage is the most of one page, and the default.
	maxPage = 1000
	// maxLooked is how many of a kind a request looks through that selects by more than names.
	maxLooked = 2000
)

// listing is the part of a list that a request asks for: some of those whose name begins with prefix, from a name on.
type listing struct {
	from, prefix string
	limit        int
}

// newListing makes one of the parameters, which have been held against the document; limit 0 is the default.
func newListing(from, prefix string, limit int) listing {
	return listing{from, prefix, cmp.Or(limit, maxPage)}
}

// begin is the first name that is of any interest.
func (l listing) begin() string { return max(l.from, l.prefix) }

// filters are what a request selects by, besides the name: what is listed passes each of them.
type filters[T any] []func(T) bool

// add adds a filter, if the request sets it.
func (f *filters[T]) add(set bool, passes func(T) bool) {
	if set {
		*f = append(*f, passes)
	}
}

// look is how many are read for a page.
func (f filters[T]) look(l listing) int {
	if len(f) > 0 {
		return maxLooked
	}
	return l.limit
}

func (f filters[T]) pass(v T) bool {
	return !slices.ContainsFunc(f, func(passes func(T) bool) bool { return !passes(v) })
}

// pageOf takes a page out of items that are sorted by name; rest is the name behind the last of them, if there are more. It
// never returns nil items, which JSON would write as null.
func pageOf[T any](l listing, f filters[T], items iter.Seq2[string, T], rest string) (page []T, next string) {
	page = []T{}
	for name, item := range items {
		if l.behind(name) {
			return page, ""
		}
		if name < l.begin() || !f.pass(item) {
			continue
		}
		if len(page) == l.limit {
			return page, name
		}
		page = append(page, item)
	}
	if l.behind(rest) {
		return page, ""
	}
	return page, rest
}

// behind reports whether neither name nor any that follows it begins with the prefix.
func (l listing) behind(name string) bool {
	return name > l.prefix && !strings.HasPrefix(name, l.prefix)
}

// each yields items with their names.
func each[T any](items []T, name func(T) string) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		for _, item := range items {
			if !yield(name(item), item) {
				return
			}
		}
	}
}
