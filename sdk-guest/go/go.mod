module github.com/modhost/modhost/sdk-guest/go

go 1.26
