package cmux

import (
	"go/types"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/exp/apidiff"
	"golang.org/x/tools/go/packages"
)

// additions are what the replacement has and the original has not.
var additions = []string{
	"(*MuxConn).CloseWrite: added",
	"(*MuxConn).ReadFrom: added",
	"(*MuxConn).WriteTo: added",
	"ErrNotMatched.Unwrap: added",
}

// TestAPI compares the exported API with that of v0.1.5: nothing is missing, nothing is changed.
func TestAPI(t *testing.T) {
	t.Parallel()
	var added []string
	for _, change := range apidiff.Changes(load(t, "-modfile=original.mod"), load(t)).Changes {
		if !change.Compatible {
			t.Errorf("not as in v0.1.5: %s", change.Message)
			continue
		}
		added = append(added, change.Message)
	}
	slices.Sort(added)
	if diff := cmp.Diff(additions, added); diff != "" {
		t.Errorf("additions to the API of v0.1.5 (-want +got):\n%s", diff)
	}
}

// load type-checks cmux, as the build flags have it.
func load(t *testing.T, flags ...string) *types.Package {
	t.Helper()
	pkgs, err := packages.Load(&packages.Config{
		Context:    t.Context(),
		Mode:       packages.LoadTypes,
		BuildFlags: flags,
	}, "github.com/soheilhy/cmux")
	if err != nil {
		t.Fatal(err)
	}
	if len(pkgs) != 1 || len(pkgs[0].Errors) > 0 {
		t.Fatalf("loading cmux with %q: %d packages, %v", flags, len(pkgs), pkgs[0].Errors)
	}
	return pkgs[0].Types
}
