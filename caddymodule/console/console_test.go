package console
const (
	operator = "operator"
	password = "hiccup"
)
