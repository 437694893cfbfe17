package keyspace

import "slices"

// Section is one sorted slice of a Snapshot that is kept up to date change by change. What Items returned is never
// changed afterwards: a change makes a new slice by merging, which for a few changes among many is one copy.
type Section[T any] struct {
	sorted  []T
	keys    []string // of sorted
	pending map[string]*T
}

// Set takes effect with the next Flush.
func (s *Section[T]) Set(key string, item T) { s.change(key, &item) }

// Remove takes effect with the next Flush.
func (s *Section[T]) Remove(key string) { s.change(key, nil) }

func (s *Section[T]) change(key string, item *T) {
	if s.pending == nil {
		s.pending = make(map[string]*T)
	}
	s.pending[key] = item
}

// Pending reports whether the next Flush has something to do.
func (s *Section[T]) Pending() bool { return len(s.pending) > 0 }

// Flush carries out what is pending and reports whether there was anything.
func (s *Section[T]) Flush() bool {
	if len(s.pending) == 0 {
		return false
	}
	changed := make([]string, 0, len(s.pending))
	for key := range s.pending {
		changed = append(changed, key)
	}
	slices.Sort(changed)
	size := len(s.keys) + len(changed)
	keys, sorted := make([]string, 0, size), make([]T, 0, size)
	i := 0
	for _, key := range changed {
		n, found := slices.BinarySearch(s.keys[i:], key)
		keys, sorted = append(keys, s.keys[i:i+n]...), append(sorted, s.sorted[i:i+n]...)
		if i += n; found {
			i++
		}
		if item := s.pending[key]; item != nil {
			keys, sorted = append(keys, key), append(sorted, *item)
		}
	}
	s.keys, s.sorted = append(keys, s.keys[i:]...), append(sorted, s.sorted[i:]...)
	s.pending = nil
	return true
}

// Items returns the slice as of the last Flush.
func (s *Section[T]) Items() []T { return s.sorted }

// Get returns what is at key as of the last Flush.
func (s *Section[T]) Get(key string) (item T, ok bool) {
	i, ok := slices.BinarySearch(s.keys, key)
	if ok {
		item = s.sorted[i]
	}
	return item, ok
}
