package accesslog

import (
	"fmt"
	"os"
	"time"
)

// File is a file that lines are added to. It is opened anew, within a second of the next line,
// once it has another name or is gone: programs that rotate logs need tell nobody. Its methods belong to
// one goroutine at a time.
type File struct {
	path   string
	file   *os.File
	looked time.Time
}

// lookEvery is how often a File looks whether it still has its name.
const lookEvery = time.Second

// OpenFile opens a file to add lines to, and makes it if need be, for the owner and the group to read.
func OpenFile(path string) (*File, error) {
	f := &File{path: path}
	return f, f.open()
}

func (f *File) open() error {
	if is, err := os.Stat(f.path); err == nil && is.Mode()&os.ModeNamedPipe != 0 {
		return fmt.Errorf("accesslog: %s is a named pipe, which cannot be opened until somebody reads it: give a file, or write to the standard output", f.path)
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640) //nolint:gosec // who collects logs is in the group, as a rule
	if err != nil {
		return fmt.Errorf("accesslog: %w", err)
	}
	if f.file != nil {
		_ = f.file.Close() // another has its name
	}
	f.file, f.looked = file, time.Now()
	return nil
}

// Write adds lines. If the file cannot be opened anew, the old one gets them, and the error says why.
func (f *File) Write(p []byte) (int, error) {
	var lost error
	if time.Since(f.looked) >= lookEvery {
		f.looked = time.Now()
		is, err := os.Stat(f.path)
		was, errWas := f.file.Stat()
		if err != nil || errWas != nil || !os.SameFile(is, was) {
			lost = f.open() // tried again in a second
		}
	}
	n, err := f.file.Write(p)
	if err != nil {
		return n, fmt.Errorf("accesslog: %w", err)
	}
	return n, lost
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }
