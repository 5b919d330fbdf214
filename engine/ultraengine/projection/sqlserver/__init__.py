"""SQL Server as a dialect: `dialect` says it in SQL; nothing here connects to one."""
