package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"sluice/api"
	"sluice/controlplane"
	"sluice/controlplane/spec"
	"sluice/registry"
)

// makePair makes a self-signed certificate and its key.
func makePair(t *testing.T) spec.Certificate {
	t.Helper()
	return makePairUntil(t, time.Now().Add(time.Hour))
}

func makePairUntil(t *testing.T, notAfter time.Time) spec.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return spec.Certificate{
		Chain: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		Key:   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})),
	}
}

func body(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// secrets returns the names of the keys that are stored.
func (in *instance) secrets() []string {
	in.t.Helper()
	page, err := in.registry.List(in.t.Context(), registry.KindSecret, "", 0)
	if err != nil {
		in.t.Fatal(err)
	}
	var names []string
	for _, o := range page.Objects {
		names = append(names, o.Name)
	}
	return names
}

func (in *instance) wantSecrets(keys ...string) {
	in.t.Helper()
	want := map[string]bool{}
	for _, k := range keys {
		want[spec.KeyHash(k)] = true
	}
	have := in.secrets()
	for _, name := range have {
		if !want[name] {
			in.t.Errorf("key %s is still stored", name)
		}
	}
	if len(have) != len(want) {
		in.t.Errorf("%d keys are stored, want %d", len(have), len(want))
	}
}

func TestKeysAreStoredApart(t *testing.T) {
	t.Parallel()
	in := start(t)
	pair := makePair(t)
	created := in.do("PUT", "/v1/certificates/main", body(t, pair)).want(201)
	var stored spec.Certificate
	in.do("GET", "/v1/certificates/main", "").want(200).json(&stored)
	if stored.Key != "" || stored.KeySHA256 != spec.KeyHash(pair.Key) || stored.Chain != pair.Chain {
		t.Errorf("%+v", stored)
	}
	in.wantSecrets(pair.Key)
	o, err := in.registry.Get(t.Context(), registry.Ref{Kind: registry.KindSecret, Name: stored.KeySHA256})
	if err != nil {
		t.Fatal(err)
	}
	if secret, err := spec.Decode[controlplane.Secret](o.Value); err != nil || secret.PEM != pair.Key {
		t.Errorf("the stored key is another one, or %v", err)
	}

	// What was got can be put back, and a repetition changes nothing.
	got := in.do("GET", "/v1/certificates/main", "").want(200)
	if back := in.do("PUT", "/v1/certificates/main", got.body).want(200); back.etag != created.etag {
		t.Errorf("ETag %s after %s", back.etag, created.etag)
	}
	if again := in.do("PUT", "/v1/certificates/main", body(t, pair)).want(200); again.etag != created.etag {
		t.Errorf("ETag %s after %s", again.etag, created.etag)
	}
	var list api.CertificateList
	all := in.do("GET", "/v1/certificates", "").want(200)
	all.json(&list)
	if len(list.Items) != 1 || time.Until(list.Items[0].NotAfter) > time.Hour || time.Until(list.Items[0].NotAfter) < time.Minute {
		t.Errorf("%+v", list.Items)
	}

	history, err := in.registry.List(t.Context(), registry.KindHistory, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	secret := strings.Split(pair.Key, "\n")[1]
	for _, text := range []string{created.body, got.body, all.body, in.log.String(), string(history.Objects[0].Value)} {
		if strings.Contains(text, secret) {
			t.Errorf("the key is in %s", text)
		}
	}
}

func TestOldKeysGo(t *testing.T) {
	t.Parallel()
	in := start(t)
	one, two := makePair(t), makePair(t)
	in.do("PUT", "/v1/certificates/a", body(t, one)).want(201)
	in.do("PUT", "/v1/certificates/b", body(t, one)).want(201)
	in.wantSecrets(one.Key)
	in.do("PUT", "/v1/certificates/a", body(t, two)).want(200)
	in.wantSecrets(one.Key, two.Key)
	in.do("PUT", "/v1/certificates/b", `{"chainFile":"/a.pem","keyFile":"/a.key"}`).want(200)
	in.wantSecrets(two.Key)
	in.do("POST", "/v1/apply", body(t, spec.Document{Certificates: map[string]spec.Certificate{"a": one, "c": two}})).want(200)
	in.wantSecrets(one.Key, two.Key)
	in.do("DELETE", "/v1/certificates/c", "").want(200)
	in.wantSecrets(one.Key)
	in.do("DELETE", "/v1/certificates/a", "").want(200)
	in.wantSecrets()
}

func TestCertificatesAreChecked(t *testing.T) {
	t.Parallel()
	in := start(t)
	one, two := makePair(t), makePair(t)
	in.do("PUT", "/v1/certificates/a", body(t, spec.Certificate{Chain: one.Chain, Key: two.Key})).
		wantDetail(422, "/key: does not belong to the first certificate of the chain")
	in.do("PUT", "/v1/certificates/a", body(t, spec.Certificate{Chain: one.Chain, KeySHA256: spec.KeyHash(one.Key)})).
		wantDetail(422, "/keySHA256: no such key is stored: give the key itself")
	in.do("PUT", "/v1/certificates/a", body(t, one)).want(201)
	in.do("PUT", "/v1/certificates/b", body(t, spec.Certificate{Chain: two.Chain, KeySHA256: spec.KeyHash(one.Key)})).
		wantDetail(422, "/keySHA256: does not belong to the first certificate of the chain")
	in.do("PUT", "/v1/upstreams/io", `{}`).want(201)
	in.do("PUT", "/v1/sites/s", `{"hosts":["a"],"listeners":[{"port":443,"tls":true}],"certificate":"a","routes":[{"upstream":"io"}]}`).want(201)
	in.do("DELETE", "/v1/certificates/a", "").wantDetail(409, "certificate/a is used by site/s")
}

func TestKeysStayOutOfRefusals(t *testing.T) {
	t.Parallel()
	in := start(t)
	for _, text := range []string{
		`{"chain":"x","key":"SECRET"}`, `{"chain":"x","key":["SECRET"]}`, `{"key":"SECRET" "SECRET"}`, `{"key":"SECRET","keyy":"SECRET"}`,
	} {
		for path, body := range map[string]string{"/v1/certificates/c": text, "/v1/apply": `{"certificates":{"c":` + text + `}}`} {
			method := "PUT"
			if path == "/v1/apply" {
				method = "POST"
			}
			if a := in.do(method, path, body); a.status < 400 || strings.Contains(a.body, "SECRET") {
				t.Errorf("%s: %s", a.body, text)
			}
		}
	}
	if strings.Contains(in.log.String(), "SECRET") {
		t.Error("the log has a key")
	}
}
