-- The source allows a department without a location; the warehouse wants one.
SELECT
    staff.staff_id,
    staff.first_name,
    staff.last_name,
    department.department_name,
    COALESCE(department.location, 'Unknown') AS location,
    staff.email_address
FROM staff
LEFT JOIN department ON department.department_id = staff.department_id
