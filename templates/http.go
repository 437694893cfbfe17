package templates

import (
	"cmp"
	"maps"
	"math/bits"
	"slices"
)

// httpView is the data of http.conf.tmpl.
type httpView struct {
	Hashes   *hashView // nil in an http block that is not ours, where the directives can be there already
	Trusts   []trustView
	Includes []token // sorted; those of the control files first
}

// hashView is the sizes of nginx's hash tables. Too small ones fail the configuration, or make nginx warn.
type hashView struct {
	NamesMaxSize   int
	NamesBucket    int
	VariablesSize  int
	VariableBucket int
}

func (b *builder) httpPage(included []page) page {
	v := httpView{Includes: []token{b.base + controlHTTPPath}}
	for _, id := range slices.Sorted(maps.Keys(b.trusts)) {
		v.Trusts = append(v.Trusts, b.trusts[id])
	}
	slices.SortFunc(included, func(a, b page) int { return cmp.Compare(a.path, b.path) })
	for _, p := range included {
		v.Includes = append(v.Includes, b.base+token(p.path))
	}
	if !b.cfg.HTTPOnly {
		v.Hashes = b.hashes()
	}
	return page{"http.conf", "http.conf.tmpl", v}
}

// hashes sizes the tables so that nginx finds a good one at once. A bucket of server names holds eight of the longest: an
// element is a pointer, a length and the name, in steps of pointers, and the list ends with a pointer. With twice as many
// buckets as names, more than eight names hardly ever meet in one.
func (b *builder) hashes() *hashView {
	names, longest := 0, 0
	for i := range b.cfg.Sites {
		for _, h := range b.cfg.Sites[i].Hosts {
			names++
			longest = max(longest, len(h))
		}
	}
	const pointer = 8
	element := pointer + (longest+2+pointer-1)/pointer*pointer
	return &hashView{
		NamesMaxSize: max(512, powerOfTwo(2*names)), // 512 is nginx's default
		NamesBucket:  max(128, powerOfTwo(8*element+pointer)),
		// nginx's own variables fit into its default of 1024 for both; a set of trusted proxies adds five.
		VariablesSize:  powerOfTwo(2048 + 16*len(b.trusts)),
		VariableBucket: 128,
	}
}

// powerOfTwo returns the lowest one that is at least n.
func powerOfTwo(n int) int {
	if n <= 1 {
		return 1
	}
	return 1 << bits.Len(uint(n-1))
}
