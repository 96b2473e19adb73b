__kernel void main1(__global uint *a) { a[get_global_id(0)] = 1; }
