package main

import (
	"context"
	"errors"
	"fmt"
	"go/types"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/exp/apidiff"
	"golang.org/x/mod/semver"
	"golang.org/x/tools/go/packages"
)

// compareAll prints what has changed in the exported API since the last releases.
func (r *repo) compareAll(ctx context.Context) error {
	mods, err := r.modules(ctx)
	if err != nil {
		return err
	}
	for _, m := range mods {
		if !m.isReleased() {
			continue
		}
		changes, since, err := r.compare(ctx, m)
		switch {
		case err != nil:
			return err
		case since == "":
			fmt.Fprintf(r.stdout, "%s: never released\n", m.path)
		case len(changes) == 0:
			fmt.Fprintf(r.stdout, "%s: as in %s\n", m.path, since)
		default:
			fmt.Fprintf(r.stdout, "%s since %s:\n", m.path, since)
			for _, change := range changes {
				kind := "incompatible"
				if change.Compatible {
					kind = "compatible"
				}
				fmt.Fprintf(r.stdout, "  %s: %s\n", kind, change.Message)
			}
		}
	}
	return nil
}

// compare returns how the exported API of a module differs from that of its last release, prereleases apart. There is
// no difference to a module that has never been released, whose last version is "".
func (r *repo) compare(ctx context.Context, m *mod) (changes []apidiff.Change, since string, err error) {
	since, err = r.lastVersion(ctx, m, false)
	if err != nil || since == "" {
		return nil, "", err
	}
	dir, err := os.MkdirTemp("", "release")
	if err != nil {
		return nil, "", err
	}
	defer os.RemoveAll(dir)
	// All of the repository, since modules may find each other there.
	archive := filepath.Join(dir, "archive.tar")
	if _, err := r.git(ctx, "archive", "-o", archive, m.tag(since)); err != nil {
		return nil, "", err
	}
	if _, err := output(ctx, dir, "tar", "-xf", archive); err != nil {
		return nil, "", err
	}
	before, err := exported(ctx, m, filepath.Join(dir, filepath.FromSlash(m.dir)))
	if err != nil {
		return nil, "", fmt.Errorf("%s at %s: %w", m.path, since, err)
	}
	now, err := exported(ctx, m, filepath.Join(r.root, filepath.FromSlash(m.dir)))
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", m.path, err)
	}
	return apidiff.ModuleChanges(before, now).Changes, since, nil
}

// exported loads the packages of a module that others can import.
func exported(ctx context.Context, m *mod, dir string) (*apidiff.Module, error) {
	pkgs, err := packages.Load(&packages.Config{
		Context: ctx,
		Mode:    packages.LoadTypes,
		Dir:     dir,
		Env:     append(os.Environ(), "GOWORK=off"),
	}, "./...")
	if err != nil {
		return nil, err
	}
	module := &apidiff.Module{Path: m.file.Module.Mod.Path}
	var errs []error
	for _, pkg := range pkgs {
		for _, err := range pkg.Errors {
			errs = append(errs, err)
		}
		if isImportable(pkg.Types) {
			module.Packages = append(module.Packages, pkg.Types)
		}
	}
	return module, errors.Join(errs...)
}

// isImportable reports whether a package is part of the API: examples are there to be copied.
func isImportable(pkg *types.Package) bool {
	return pkg.Name() != "main" && !strings.Contains(pkg.Path()+"/", "/internal/") && !strings.Contains(pkg.Path(), "/examples/")
}

// checkStep reports why the next version of a module says too little of what has changed since the last one.
func checkStep(path, since, version string, changes []apidiff.Change) error {
	if since == "" {
		return nil
	}
	sameMajor := semver.Major(since) == semver.Major(version)
	sameMinor := semver.MajorMinor(since) == semver.MajorMinor(version)
	unstable := semver.Major(version) == "v0"
	for _, change := range changes {
		switch {
		case !change.Compatible && sameMajor && !unstable:
			return fmt.Errorf("%s is not compatible with %s: %s", path, since, change.Message)
		case !change.Compatible && sameMinor:
			return fmt.Errorf("%s is not compatible with %s, and %s has the same minor version: %s", path, since, version, change.Message)
		case change.Compatible && sameMinor && !unstable:
			return fmt.Errorf("%s has more than %s, and %s has the same minor version: %s", path, since, version, change.Message)
		}
	}
	return nil
}
