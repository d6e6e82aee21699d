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

// The prefix by which the host marks temporary errors.
const unavailablePrefix = "unavailable: "

// Store is a bucket of the module's key-value store, for values kept between events. All values are private to the module and the
// event's tenant. A write is on disk when the call returns, and it stays, however the delivery ends.
type Store struct{ bucket *keyvalue.Bucket }

// OpenStore opens the bucket with this name. Any name is valid; "" is the default bucket.
func OpenStore(name string) (*Store, error) {
	bucket, err := unwrapStore("keyvalue.open", keyvalue.Open(name))
	if err != nil {
		return nil, err
	}
	return &Store{bucket}, nil
}

// Get returns the value of a key. The second result reports whether the key exists.
func (s *Store) Get(key string) ([]byte, bool, error) {
	value, err := unwrapStore("keyvalue.get", s.bucket.Get(key))
	return value.SomeOr(nil), value.IsSome(), err
}

// GetJSON unmarshals the value of a key into the value that value points to. The result reports whether the key exists.
func (s *Store) GetJSON(key string, value any) (bool, error) {
	text, exists, err := s.Get(key)
	if err != nil || !exists {
		return false, err
	}
	if err := json.Unmarshal(text, value); err != nil {
		return true, unreadableValue(key, err)
	}
	return true, nil
}

// Set sets a key, and overwrites any old value.
func (s *Store) Set(key string, value []byte) error {
	return unwrapStoreUnit("keyvalue.set", s.bucket.Set(key, value))
}

// SetJSON sets a key to a value, marshaled as JSON.
func (s *Store) SetJSON(key string, value any) error {
	text, err := toJSON("value", value)
	if err != nil {
		return err
	}
	return s.Set(key, []byte(text))
}

// Delete deletes a key, if it exists.
func (s *Store) Delete(key string) error {
	return unwrapStoreUnit("keyvalue.delete", s.bucket.Delete(key))
}

// Exists reports whether a key exists.
func (s *Store) Exists(key string) (bool, error) {
	return unwrapStore("keyvalue.exists", s.bucket.Exists(key))
}

// Keys iterates over all keys, in byte order.
func (s *Store) Keys() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		cursor := types.None[string]()
		for {
			page, err := unwrapStore("keyvalue.list-keys", s.bucket.ListKeys(cursor))
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

// GetMany returns the values of several keys. Keys that don't exist are missing in the result.
func (s *Store) GetMany(keys ...string) (map[string][]byte, error) {
	found, err := unwrapStore("keyvalue.get-many", batch.GetMany(s.bucket, keys))
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

// SetMany sets several keys atomically.
func (s *Store) SetMany(values map[string][]byte) error {
	entries := make([]types.Tuple2[string, []uint8], 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		entries = append(entries, types.Tuple2[string, []uint8]{F0: key, F1: values[key]})
	}
	return unwrapStoreUnit("keyvalue.set-many", batch.SetMany(s.bucket, entries))
}

// DeleteMany deletes several keys atomically.
func (s *Store) DeleteMany(keys ...string) error {
	return unwrapStoreUnit("keyvalue.delete-many", batch.DeleteMany(s.bucket, keys))
}

// Increment adds to a number stored as decimal text, and returns the sum. A missing key counts as 0.
func (s *Store) Increment(key string, by int64) (int64, error) {
	return unwrapStore("keyvalue.increment", atomics.Increment(s.bucket, key, by))
}

// CompareAndSwap sets a key if its current value is expected (nil: the key doesn't exist). It reports whether it was set.
func (s *Store) CompareAndSwap(key string, expected, value []byte) (bool, error) {
	same := false
	err := s.change(key, func(current []byte) ([]byte, bool, error) {
		same = (current == nil) == (expected == nil) && bytes.Equal(current, expected)
		return value, same, nil
	})
	return same && err == nil, err
}

// Update changes the value of a key (nil: the key doesn't exist) atomically, and returns the new value. It calls change again if another
// delivery changed the value in the meantime. If change fails, nothing is written.
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

// UpdateJSON is [Store.Update] for a value stored as JSON. change receives the current value, or the zero value if the key doesn't exist,
// and changes it in place. UpdateJSON returns the new value.
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

// change passes the current value (nil: the key doesn't exist) to next, and writes the value that next returns if write is true. It
// repeats this while other deliveries change the value in the meantime.
func (s *Store) change(key string, next func(current []byte) (value []byte, write bool, err error)) error {
	cas, err := unwrapStore("keyvalue.cas.new", atomics.CasNew(s.bucket, key))
	if err != nil {
		return err
	}
	for {
		found, err := unwrapStore("keyvalue.cas.current", cas.Current())
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
		// Set by another delivery in the meantime, maybe to the same value.
		cas = failed.CasFailed()
	}
}

func unreadableValue(key string, cause error) error {
	text := fmt.Sprintf("cannot read the value of `%s`: %v", key, cause)
	return &Error{Call: "keyvalue.get", Kind: ErrInvalid, Text: text}
}

// unwrapStore converts a result of wasi:keyvalue to a value and an error.
func unwrapStore[T any](call string, result types.Result[T, keyvalue.Error]) (T, error) {
	if result.IsErr() {
		var none T
		return none, storeError(call, result.Err())
	}
	return result.Ok(), nil
}

func unwrapStoreUnit(call string, result types.Result[types.Unit, keyvalue.Error]) error {
	_, err := unwrapStore(call, result)
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
		var temporary bool
		if err.Text, temporary = strings.CutPrefix(wit.Other(), unavailablePrefix); temporary {
			err.Kind = ErrUnavailable
		} else {
			err.Kind = ErrInvalid
		}
	}
	return err
}
