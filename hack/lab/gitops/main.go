// gitops: what tools that apply from a repository say about an object, by their own libraries.
//
// Reads {"live", "wanted", "predicted", "health"} as JSON and writes {"kstatus", "health", "diff"}.
// kstatus is what Flux and kpt wait by. Health is Argo CD's, with a script in Lua as it is given
// there for a kind. Diff is whether Argo CD calls the object OutOfSync: without "predicted" by
// comparing three ways, with it (the answer of a server-side apply in dry run) by that answer.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/argoproj/gitops-engine/pkg/diff"
	"github.com/argoproj/gitops-engine/pkg/health"
	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Live      *unstructured.Unstructured `json:"live"`
	Wanted    *unstructured.Unstructured `json:"wanted"`
	Predicted *unstructured.Unstructured `json:"predicted"`
	Health    string                     `json:"health"`
}

type answer struct {
	Kstatus string               `json:"kstatus"`
	Health  *health.HealthStatus `json:"health"`
	Diff    *bool                `json:"diff"`
}

// script is Argo CD's health script of a kind: it sees `obj` and returns a table.
type script string

func (s script) GetResourceHealth(obj *unstructured.Unstructured) (*health.HealthStatus, error) {
	state := lua.NewState()
	defer state.Close()
	state.SetGlobal("obj", value(state, obj.Object))
	if err := state.DoString(string(s)); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returns no table")
	}
	return &health.HealthStatus{
		Status:  health.HealthStatusCode(lua.LVAsString(table.RawGetString("status"))),
		Message: lua.LVAsString(table.RawGetString("message")),
	}, nil
}

// value is JSON's value as Lua's; lists begin at 1, as Argo CD gives them.
func value(state *lua.LState, from any) lua.LValue {
	switch it := from.(type) {
	case bool:
		return lua.LBool(it)
	case string:
		return lua.LString(it)
	case int64:
		return lua.LNumber(it)
	case float64:
		return lua.LNumber(it)
	case []any:
		table := state.NewTable()
		for _, one := range it {
			table.Append(value(state, one))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, one := range it {
			table.RawSetString(key, value(state, one))
		}
		return table
	}
	return lua.LNil
}

// predicted answers for the API server, which was asked already.
type predicted struct{ object *unstructured.Unstructured }

func (p predicted) Run(context.Context, *unstructured.Unstructured, string) (string, error) {
	text, err := p.object.MarshalJSON()
	return string(text), err
}

func judge(asked question) (found answer, err error) {
	result, err := status.Compute(asked.Live)
	if err != nil {
		return found, err
	}
	found.Kstatus = result.Status.String()
	var own health.HealthOverride
	if asked.Health != "" {
		own = script(asked.Health)
	}
	if found.Health, err = health.GetResourceHealth(asked.Live, own); err != nil {
		return found, err
	}
	if asked.Wanted == nil {
		return found, nil
	}
	options := []diff.Option{diff.WithManager("argocd-controller")}
	if asked.Predicted != nil {
		options = append(options, diff.WithServerSideDiff(true), diff.WithIgnoreMutationWebhook(false),
			diff.WithServerSideDryRunner(predicted{asked.Predicted}))
	}
	compared, err := diff.Diff(asked.Wanted, asked.Live, options...)
	if err != nil {
		return found, err
	}
	found.Diff = &compared.Modified
	return found, nil
}

func main() {
	var asked question
	err := json.NewDecoder(os.Stdin).Decode(&asked)
	if err == nil {
		var found answer
		if found, err = judge(asked); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(found)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
