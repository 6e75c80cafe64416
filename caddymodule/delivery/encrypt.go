// SPDX-FileCopyrightText: 2026 The timguard authors
// SPDX-License-Identifier: Apache-2.0

package delivery

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/insecuresecretdataaccess"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/secretdata"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/timguard/timguard/caddymodule/internal/option"
	"github.com/timguard/timguard/caddymodule/outbox"
)

// KeySize is the size of a key in bytes.
const KeySize = 32

// newCipher returns a cipher of AES-256-GCM that encrypts with the first of the keys, and
// decrypts with any of them.
func newCipher(keys []string) (tink.AEAD, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	manager := keyset.NewManager()
	for i, text := range keys {
		id, err := addKey(manager, text)
		if err != nil {
			return nil, fmt.Errorf("encrypt: key %d: %w", i+1, err)
		}
		if i > 0 {
			continue
		}
		if err := manager.SetPrimary(id); err != nil {
			return nil, err
		}
	}
	handle, err := manager.Handle()
	if err != nil {
		return nil, err
	}
	return aead.New(handle)
}

// addKey adds a key, whose ID does not depend on its position.
func addKey(manager *keyset.Manager, text string) (id uint32, err error) {
	if text, err = option.Expand(text); err != nil {
		return 0, err
	}
	secret, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil || len(secret) != KeySize {
		return 0, errors.New("want 32 bytes in base64, such as tim-callback keygen prints")
	}
	parameters, err := aesgcm.NewParameters(aesgcm.ParametersOpts{KeySizeInBytes: KeySize, IVSizeInBytes: 12, TagSizeInBytes: 16, Variant: aesgcm.VariantTink})
	if err != nil {
		return 0, err
	}
	sum := sha256.Sum256(secret)
	key, err := aesgcm.NewKey(secretdata.NewBytesFromData(secret, insecuresecretdataaccess.Token{}), binary.BigEndian.Uint32(sum[:]), parameters)
	if err != nil {
		return 0, err
	}
	if id, err = manager.AddKey(key); err != nil {
		return 0, errors.New("it is given twice")
	}
	return id, nil
}

// sealed is the encrypted part of a row.
type sealed struct {
	Header map[string][]string `json:"header"`
	Body   string              `json:"body"`
}

// associated returns what a sealed part belongs to, so that it cannot be moved to another
// row.
func associated(c *outbox.Callback) []byte {
	return []byte(strings.Join([]string{c.Guard, c.SdkAppID, c.Command, c.EventID}, "\n"))
}

// seal encrypts header and body of the row if there are keys.
func (s *Service) seal(c *outbox.Callback) error {
	if s.cipher == nil {
		return nil
	}
	plain, err := json.Marshal(sealed{c.Header, c.Body})
	if err != nil {
		return err
	}
	if c.Sealed, err = s.cipher.Encrypt(plain, associated(c)); err != nil {
		return err
	}
	c.Header, c.Body = nil, ""
	return nil
}

var errNoKey = errors.New("the callback is encrypted with a key that is not configured; add it to encrypt of tim_delivery")

// unseal decrypts header and body of the row if they are encrypted.
func (s *Service) unseal(c *outbox.Callback) error {
	if c.Sealed == nil {
		return nil
	}
	if s.cipher == nil {
		return errNoKey
	}
	plain, err := s.cipher.Decrypt(c.Sealed, associated(c))
	if err != nil {
		return errNoKey
	}
	var got sealed
	if err := json.Unmarshal(plain, &got); err != nil {
		return errors.New("the decrypted callback is not what was stored")
	}
	c.Header, c.Body, c.Sealed = got.Header, got.Body, nil
	return nil
}
