package modhost

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	atomics "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_keyvalue_atomics"
	batch "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_keyvalue_batch"
	keyvalue "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wasi_keyvalue_store"
	types "github.com/modhost/modhost/sdk-guest/go/internal/bindings/wit/types"
)

// How the host begins the text of an error that another try may mend.
const passing = "unavailable: "

// Store is what the module keeps from one event to the next: values under keys. All of it is private to the module and the
// tenant of the event. A write is on disk when the call returns, and stays, however the event ends.
type Store struct{ bucket *keyvalue.Bucket }

// OpenStore opens the bucket of this name; any name will do, and "" is the default one.
func OpenStore(name string) (*Store, error) {
	bucket, err := kept("keyvalue.open", keyvalue.Open(name))
	if err != nil {
		return nil, err
	}
	return &Store{bucket}, nil
}

// Get reads a value; the second result tells whether there is one.
func (s *Store) Get(key string) ([]byte, bool, error) {
	value, err := kept("keyvalue.get", s.bucket.Get(key))
	return value.SomeOr(nil), value.IsSome(), err
}

// GetJSON reads a value into what value points to; the result tells whether there is one.
func (s *Store) GetJSON(key string, value any) (bool, error) {
	text, there, err := s.Get(key)
	if err != nil || !there {
		return false, err
	}
	if err := json.Unmarshal(text, value); err != nil {
		return true, unreadableValue(key, err)
	}
	return true, nil
}

// Set writes a value, in place of any that was there.
func (s *Store) Set(key string, value []byte) error {
	return stored("keyvalue.set", s.bucket.Set(key, value))
}

// SetJSON writes a value as JSON.
func (s *Store) SetJSON(key string, value any) error {
	text, err := toJSON("value", value)
	if err != nil {
		return err
	}
	return s.Set(key, []byte(text))
}

// Delete removes a value; there need not be one.
func (s *Store) Delete(key string) error { return stored("keyvalue.delete", s.bucket.Delete(key)) }

// Exists tells whether there is a value.
func (s *Store) Exists(key string) (bool, error) {
	return kept("keyvalue.exists", s.bucket.Exists(key))
}

// Keys gives all keys, in the order of their bytes.
func (s *Store) Keys() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		cursor := types.None[string]()
		for {
			page, err := kept("keyvalue.list-keys", s.bucket.ListKeys(cursor))
			if err != nil {
				yield("", err)
				return
			}
			for _, key := range page.Keys {
				if !yield(key, nil) {
					return
				}
			}
			if cursor = page.Cursor; cursor.IsNone() {
				return
			}
		}
	}
}

// GetMany reads values; those that aren't there are missing in the result.
func (s *Store) GetMany(keys ...string) (map[string][]byte, error) {
	found, err := kept("keyvalue.get-many", batch.GetMany(s.bucket, keys))
	if err != nil {
		return nil, err
	}
	values := make(map[string][]byte)
	for _, entry := range found {
		if entry.IsSome() {
			values[entry.Some().F0] = entry.Some().F1
		}
	}
	return values, nil
}

// SetMany writes all these values or none.
func (s *Store) SetMany(values map[string][]byte) error {
	entries := make([]types.Tuple2[string, []uint8], 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		entries = append(entries, types.Tuple2[string, []uint8]{F0: key, F1: values[key]})
	}
	return stored("keyvalue.set-many", batch.SetMany(s.bucket, entries))
}

// DeleteMany removes all these values or none.
func (s *Store) DeleteMany(keys ...string) error {
	return stored("keyvalue.delete-many", batch.DeleteMany(s.bucket, keys))
}

// Increment adds to a number kept as decimal text, 0 where there is none, and gives the sum.
func (s *Store) Increment(key string, by int64) (int64, error) {
	return kept("keyvalue.increment", atomics.Increment(s.bucket, key, by))
}

// CompareAndSwap writes a value if the one that is there is as expected (nil: none is), and tells whether it did.
func (s *Store) CompareAndSwap(key string, expected, value []byte) (bool, error) {
	same := false
	err := s.change(key, func(current []byte) ([]byte, bool, error) {
		same = (current == nil) == (expected == nil) && bytes.Equal(current, expected)
		return value, same, nil
	})
	return same && err == nil, err
}

// Update sets the key to what change makes of its value (nil: there is none), and gives that. If another delivery sets the
// key in between, change is called again with what that has set. If change fails, nothing is written.
func (s *Store) Update(key string, change func(value []byte) ([]byte, error)) ([]byte, error) {
	var changed []byte
	err := s.change(key, func(current []byte) (_ []byte, write bool, err error) {
		changed, err = change(current)
		return changed, true, err
	})
	if err != nil {
		return nil, err
	}
	return changed, nil
}

// UpdateJSON is [Store.Update] for a value kept as JSON. change is given what stands under the key, and the zero value where
// nothing does, and changes it in its place; what it made of it is the result.
//
//	recent, err := modhost.UpdateJSON(store, "recent", func(recent *[]string) error {
//		*recent = append([]string{question}, *recent...)
//		return nil
//	})
func UpdateJSON[T any](store *Store, key string, change func(value *T) error) (T, error) {
	var changed T
	_, err := store.Update(key, func(text []byte) ([]byte, error) {
		var value T
		if text != nil {
			if err := json.Unmarshal(text, &value); err != nil {
				return nil, unreadableValue(key, err)
			}
		}
		if err := change(&value); err != nil {
			return nil, err
		}
		written, err := toJSON("value", value)
		changed = value
		return []byte(written), err
	})
	return changed, err
}

// change looks at a value (nil: there is none), and writes what next makes of it, if that wants to; again while others are
// faster.
func (s *Store) change(key string, next func(current []byte) (value []byte, write bool, err error)) error {
	cas, err := kept("keyvalue.cas.new", atomics.CasNew(s.bucket, key))
	if err != nil {
		return err
	}
	for {
		found, err := kept("keyvalue.cas.current", cas.Current())
		if err != nil {
			cas.Drop()
			return err
		}
		current := found.SomeOr(nil)
		if found.IsSome() && current == nil {
			current = []byte{}
		}
		value, write, err := next(current)
		if err != nil || !write {
			cas.Drop()
			return err
		}
		result := atomics.Swap(cas, value)
		if result.IsOk() {
			return nil
		}
		failed := result.Err()
		if failed.Tag() == atomics.CasErrorStoreError {
			return storeError("keyvalue.swap", failed.StoreError())
		}
		// Set anew in between, maybe to the same.
		cas = failed.CasFailed()
	}
}

func unreadableValue(key string, cause error) error {
	what := fmt.Sprintf("what stands under `%s` isn't what the module expects: %v", key, cause)
	return &Error{Call: "keyvalue.get", Kind: ErrInvalid, Text: what}
}

// kept gives what a call answered as Go has it.
func kept[T any](call string, result types.Result[T, keyvalue.Error]) (T, error) {
	if result.IsErr() {
		var none T
		return none, storeError(call, result.Err())
	}
	return result.Ok(), nil
}

func stored(call string, result types.Result[types.Unit, keyvalue.Error]) error {
	_, err := kept(call, result)
	return err
}

func storeError(call string, wit keyvalue.Error) error {
	err := &Error{Call: call}
	switch wit.Tag() {
	case keyvalue.ErrorNoSuchStore:
		err.Kind = ErrNotFound
	case keyvalue.ErrorAccessDenied:
		err.Kind = ErrDenied
	default:
		var may bool
		if err.Text, may = strings.CutPrefix(wit.Other(), passing); may {
			err.Kind = ErrUnavailable
		} else {
			err.Kind = ErrInvalid
		}
	}
	return err
}
