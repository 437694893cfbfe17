package registry

import (
	"cmp"
	"slices"
)

// SortProblems sorts problems in place as a Snapshot has them, and returns them.
func SortProblems(problems []Problem) []Problem {
	slices.SortFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Object, b.Object), cmp.Compare(a.Field, b.Field), cmp.Compare(a.Message, b.Message))
	})
	return problems
}
